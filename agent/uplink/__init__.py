"""Findings to the broker through a durable spool; a row leaves only when acknowledged."""
