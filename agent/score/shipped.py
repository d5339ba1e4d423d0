"""Which bundle is shipped with this version, and the digests that it is trusted by.

Written by `wardwatch-convert pack --shipped`; not edited by hand.
"""

DEFAULT = "ip-1-20261122-453c3e16"
"""Folder of the bundle inside `agent/_models` (installed) or `models` (checkout); empty: none is shipped."""

MANIFEST_SHA256: dict[str, str] = {
    DEFAULT: "ccd49c90d9adfd5a32e2a224f91e9c821c7cc11cbb97a42ad1294df10522fb85",
}
"""SHA-256 of `manifest.json` by bundle id."""
