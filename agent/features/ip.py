"""Windowed features of hosts: schema `ip-1`. (The extractor follows; the schema stands.)"""

from agent.features.ip_schema import SCHEMA

__all__ = ["SCHEMA"]
