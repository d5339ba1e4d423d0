"""Which bundle is shipped with this version, and the digests that it is trusted by.

Written by `wardwatch-convert pack --shipped`; not edited by hand.
"""

DEFAULT = "ip-1-20261122-54527609"
"""Folder of the bundle inside `agent/_models` (installed) or `models` (checkout); empty: none is shipped."""

MANIFEST_SHA256: dict[str, str] = {
    DEFAULT: "67f6457e0dc885013cfe5d8dcf1975ae5ba7850977b86d03f00a76bf27c74c7b",
}
"""SHA-256 of `manifest.json` by bundle id."""
