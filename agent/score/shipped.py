"""Which bundle is shipped with this version, and the digests that it is trusted by.

Written by `wardwatch-convert pack --shipped`; not edited by hand.
"""

DEFAULT = "ip-1-20261123-97c23541"
"""Folder of the bundle inside `agent/_models` (installed) or `models` (checkout); empty: none is shipped."""

MANIFEST_SHA256: dict[str, str] = {
    DEFAULT: "19e3a0a4dc09f076cd1aa4a84747fa904fa7efaa033d88961495739f380c678e",
}
"""SHA-256 of `manifest.json` by bundle id."""
