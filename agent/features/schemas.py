"""The table of schemas that this agent can compute, by id; nothing is discovered by magic.

A model bundle names the schema that it was trained on; what is not in this table is refused. New
traffic on a known link is one file in this folder and one row here.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from agent.features.ip import HostWindows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.features.schema import Schema

EXTRACTORS: Mapping[str, type[HostWindows]] = MappingProxyType({HostWindows.schema.id: HostWindows})
"""What computes each schema, by id; each is made with `salt=`."""

SCHEMAS: Mapping[str, Schema] = MappingProxyType({i: e.schema for i, e in EXTRACTORS.items()})
"""Schemas by id."""
