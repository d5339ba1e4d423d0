"""Which bundle is shipped with this version, and the digests that it is trusted by.

Written by `wardwatch-convert pack --shipped`; not edited by hand.
"""

DEFAULT = "ip-1-20261122-034fc8c2"
"""Folder of the bundle inside `agent/_models` (installed) or `models` (checkout); empty: none is shipped."""

MANIFEST_SHA256: dict[str, str] = {
    DEFAULT: "44cea9acc759c760505ed99abefa4ee037e7413d2e923bcc57f7c1db78971eb9",
}
"""SHA-256 of `manifest.json` by bundle id."""
