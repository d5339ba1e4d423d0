"""Schemas: digests, names, and the page that is generated from them."""

from __future__ import annotations

import dataclasses
import re

import pytest

from agent.features.ip_schema import SPECS
from agent.features.rows import RAW
from agent.features.schema import Feature, Schema
from agent.features.schemas import SCHEMAS
from tests.support.feature_docs import DOCS, text

FEATURE = Feature("out_packets_1s", "packets", "count", "packets sent")


def test_digest_is_fixed_by_the_content():
    assert Schema("ip-1", (FEATURE,)).digest == Schema("ip-1", (FEATURE,)).digest
    assert Schema("ip-1", (FEATURE,)).digest == "9cb1c117dcfc0778"


@pytest.mark.parametrize("field", ["name", "unit", "dtype", "meaning"])
def test_digest_changes_with_every_field(field):
    other = dataclasses.replace(FEATURE, **{field: "x"})
    assert Schema("ip-1", (FEATURE,)).digest != Schema("ip-1", (other,)).digest


def test_digest_changes_with_id_and_order():
    other = dataclasses.replace(FEATURE, name="in_packets_1s")
    assert Schema("ip-1", (FEATURE,)).digest != Schema("ip-2", (FEATURE,)).digest
    assert Schema("ip-1", (FEATURE, other)).digest != Schema("ip-1", (other, FEATURE)).digest


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=lambda s: s.id)
def test_features_are_well_formed(schema):
    assert len({f.name for f in schema.features}) == len(schema)
    for f in schema.features:
        assert re.fullmatch(r"[a-z][a-z0-9_]*_(1s|60s)", f.name), f.name
        assert f.dtype in {"count", "ratio", "root"}
        assert f.unit
        assert f.meaning
        assert "{" not in f.meaning


def test_every_raw_column_of_a_feature_exists():
    assert {c for s in SPECS for c in (*s.top, *s.bottom)} <= set(RAW)


def test_the_page_of_features_is_up_to_date():
    assert DOCS.read_text() == text(), "run: python -m tests.support.feature_docs"
