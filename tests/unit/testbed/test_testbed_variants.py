"""Every kind has many variants, split into training and held out; each is bounded and of its label's shape."""

import re
from pathlib import Path
from random import Random

import pytest

from converter.testbed.attacks import MAX_FRAMES
from converter.testbed.layout import draw_ward
from converter.testbed.plan import choices, load_plan
from converter.testbed.schedule import expand
from converter.testbed.tools import EXTRA, TOOLS
from converter.testbed.variants import FIRST_VARIANTS, KINDS, VARIANTS

ROOT = Path(__file__).parents[3]
PLANS = ROOT / "converter" / "testbed" / "plans"
NEW = [v for v in VARIANTS if v not in FIRST_VARIANTS]
NO_TOOL = {"own", "paho"}


def ward_with_everything(seed=1):
    return draw_ward(Random(seed), devices=9, offloads=False, tls=True, ipv6=True)


def used_by(*names):
    found = set()
    for name in names:
        for group in load_plan(PLANS / f"{name}.toml").group:
            if group.episodes[1]:
                found |= {v for vs in choices(group).values() for v in vs}
    return found


def held_out():
    groups = {g.name: g for g in load_plan(PLANS / "heldout2.toml").group}
    return {v for vs in choices(groups["other"]).values() for v in vs}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_eight_variants_to_train_on_and_four_that_are_held_out(kind):
    names = {v.name for v in VARIANTS if v.kind == kind}
    assert len(names & used_by("first", "second", "third")) >= 8
    assert len(names & held_out()) >= 4


def test_no_variant_is_trained_on_and_held_out():
    assert used_by("first", "second", "third").isdisjoint(held_out())


def test_every_variant_is_one_or_the_other_and_the_docs_say_which():
    text = (ROOT / "docs" / "testbed.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| `(\w+)` \| `([\w-]+)` \| (\S+) \| (training|held out) \|$", text, re.MULTILINE
    )
    held = held_out()
    assert rows == [
        (v.kind, v.name, v.tool, "held out" if v.name in held else "training")
        for kind in KINDS
        for v in VARIANTS
        if v.kind == kind
    ]
    assert used_by("first", "second", "third") | held == {v.name for v in VARIANTS}


def test_every_tool_has_a_package():
    assert {v.tool for v in VARIANTS} - NO_TOOL <= set(TOOLS) | set(EXTRA)


@pytest.mark.parametrize("row", NEW, ids=lambda v: v.name)
def test_a_new_variant_is_bounded_and_equal_seeds_draw_it_equally(row):
    for seed in range(8):
        ward = ward_with_everything(seed)
        hosts = ward.of("attacker")[: row.attackers]
        attack = row.build(Random(seed), ward, hosts)
        assert attack == row.build(Random(seed), ward, hosts)
        assert len(attack.commands) == row.attackers
        assert 0 < attack.expect_s <= 75
        assert all(0 < c.limit_s <= 160 for c in attack.commands)
        assert not any(
            "{" in w and "}" in w and '"' not in w for c in attack.commands for w in c.argv[3:]
        )
        addresses = {h.ip for h in ward.hosts} | {h.ip6 for h in ward.hosts if h.ip6}
        assert set(attack.victims) <= addresses
        assert attack.victims or row.kind == "ping_sweep"
        v6 = [":" in v for v in attack.victims]
        assert all(v6) or not any(v6)
        assert not any(v6) or row.needs == "ipv6"
        counts = [int(n) for c in attack.commands for n in re.findall(r'"count":(\d+)', c.argv[-1])]
        assert sum(counts) <= MAX_FRAMES
        if row.kind.startswith("mqtt_"):
            assert attack.ports


def test_a_ward_without_ipv6_or_tls_is_not_dealt_what_needs_them():
    for name in ("third", "heldout2"):
        for spec in expand(load_plan(PLANS / f"{name}.toml")):
            has = {
                "",
                *(["ipv6"] if spec.ward.prefix6 else []),
                *(["tls"] if spec.ward.tls_port else []),
            }
            for step in spec.steps:
                row = next((v for v in VARIANTS if step.kind and v.name == step.name), None)
                assert row is None or row.needs in has


def test_the_first_plans_still_draw_the_runs_that_are_recorded():
    digests = {
        "demo": "dc0ac84ed26f036b",
        "first": "60645596fcd4f066",
        "second": "45649731f1eb103e",
        "heldout": "451804c81d3249ee",
    }
    assert {n: expand(load_plan(PLANS / f"{n}.toml"))[0].digest for n in digests} == digests
