"""Bytes to columns, one protocol layer per file; it never raises on what a frame contains."""
