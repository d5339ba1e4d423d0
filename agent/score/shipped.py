"""Which bundle is shipped with this version, and the digests that it is trusted by.

Written by `wardwatch-convert pack --shipped`; not edited by hand.
"""

DEFAULT = ""
"""Folder of the bundle inside `agent/_models` (installed) or `models` (checkout); empty: none is shipped."""

MANIFEST_SHA256: dict[str, str] = {}
"""SHA-256 of `manifest.json` by bundle id."""
