"""Who made a network card, by the first bits of its MAC: the IEEE's public lists, as Debian ships them.

It asks nobody: it reads `/usr/share/ieee-data` (package `ieee-data`; the lists themselves are in the public domain)
where it is installed, and else knows no vendor. Read only when somebody wants to see it, never by the service.

In: MAC addresses as integers. Out: an organisation's name, `""` unknown. Raises: nothing. Remembers: the lists.
Source: IEEE Registration Authority, MA-L (24 bits), MA-M (28), MA-S and IAB (36); IEEE 802c (local addresses).
"""

import csv
from pathlib import Path

FOLDER = Path("/usr/share/ieee-data")
FILES = ("oui36.csv", "iab.csv", "mam.csv", "oui.csv")
DIGITS = (9, 7, 6)
"""Hex digits of an assignment, the longest first: a small block lies inside a large one."""
MAX_NAME = 80
LOCAL = "(locally administered)"


class Vendors:
    """The lists of one folder."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._names: dict[str, str] = {}
        self.problem: str | None = None
        """Why no vendor is known; None: the lists are there."""
        for name in FILES:
            try:
                with (folder / name).open(encoding="utf-8", errors="replace", newline="") as file:
                    for row in csv.reader(file):
                        if len(row) >= 3:
                            self._names[row[1].strip().upper()] = row[2].strip()[:MAX_NAME]
            except (OSError, csv.Error):
                continue
        if not self._names:
            self.problem = f"no vendor lists in {folder}; apt-get install ieee-data"

    def of(self, mac: int) -> str:
        """The vendor's name, `LOCAL` for an address that somebody made up, `""` unknown."""
        if is_local(mac):
            return LOCAL
        digits = f"{mac:012X}"
        return next((self._names[digits[:n]] for n in DIGITS if digits[:n] in self._names), "")


def is_local(mac: int) -> bool:
    """Whether a MAC is locally administered: no vendor gave it (virtual machines, privacy, forgeries)."""
    return bool(mac >> 41 & 1)
