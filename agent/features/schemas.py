"""The table of schemas that this agent can compute, by id; nothing is discovered by magic.

A model bundle names the schema that it was trained on; what is not in this table is refused. New
traffic on a known link is one file in this folder and one row here.
"""

from __future__ import annotations

from types import MappingProxyType

from agent.features import ip_schema
from agent.features.schema import Schema

SCHEMAS: MappingProxyType[str, Schema] = MappingProxyType({ip_schema.SCHEMA.id: ip_schema.SCHEMA})
"""Schemas by id."""
