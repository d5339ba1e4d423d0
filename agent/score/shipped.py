"""Which bundle is shipped with this version, and the digests that it is trusted by.

Written by `wardwatch-convert pack --shipped`; not edited by hand.
"""

DEFAULT = "ip-1-20261122-034fc8c2"
"""Folder of the bundle inside `agent/_models` (installed) or `models` (checkout); empty: none is shipped."""

MANIFEST_SHA256: dict[str, str] = {
    DEFAULT: "b95e60d6a320af299035ce1011fee7cc5fc53777ab834c1fdf5b9c211e5a46b8",
}
"""SHA-256 of `manifest.json` by bundle id."""
