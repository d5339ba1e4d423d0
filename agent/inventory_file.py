"""The inventory on disk: what was seen survives a restart. Local: it holds raw addresses and leaves by no way.

It never writes half a file, and never deletes one that it cannot read: that is set aside, and said. Times in memory
are event time, on disk wall time [ms]; so a clock that is set right after the boot sets the times of this run right,
too, and leaves those of earlier runs alone.

In: `Sightings`, the state folder, what to add to event time. Out: `inventory.json`; rows for `wardwatch devices`.
Raises: `OSError` where it cannot be written. Remembers: `InventoryFile`, when it last wrote what.
"""

import json
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.alert.endpoints import parse, text
from agent.inventory.devices import BIT, PROTOCOLS, DeviceTable, Held, Known
from agent.inventory.sightings import Sightings
from agent.records import Endpoint
from agent.state_files import set_aside, write_whole

FILE = "inventory.json"
SCHEMA = "wardwatch.inventory.v1"
SAVE_S = 600.0
"""How old the file may be: an SD card lives longer if it is not written each minute."""
SAVE_NEW_S = 10.0
"""After a device came or went."""
MS = 1_000_000


class InventoryFile:
    """The file of one gateway."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / FILE
        self.problem: str | None = None
        """Why the file could not be read, or written, the last time; None: it could."""
        self.began_ms: int | None = None
        """Wall time at which the inventory was begun; None: never saved."""
        self._saved_s: float | None = None
        self._saved_changes = -1

    def load(self, sightings: Sightings) -> None:
        """Fill an empty book; a file that cannot be read is set aside, and `problem` says so."""
        try:
            tree = json.loads(self.path.read_bytes())
            known = [_known(row) for row in _checked(tree)]
            self.began_ms = int(tree["began_ms"])
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self._set_aside(error)
            return

        def restore(table: DeviceTable) -> None:
            for each in known:
                table.restore(each)

        sightings.read(restore)

    def save(self, sightings: Sightings, *, wall_offset_ns: int) -> None:
        """Write what is known now; raises `OSError`."""
        tree = tree_of(sightings, wall_offset_ns=wall_offset_ns)
        times = [row["first_seen_ms"] for row in tree["devices"]]
        if self.began_ms is None:
            self.began_ms = min(times, default=None)
        if self.began_ms is not None:
            tree["began_ms"] = self.began_ms
            write_whole(self.path, json.dumps(tree, indent=1).encode())
            self.problem = None

    def save_if_due(self, sightings: Sightings, *, now_s: float, wall_offset_ns: int) -> None:
        """Save after a while, sooner where devices came or went; what fails stands in `problem`."""
        changes = sightings.table.n_admitted
        waited_s = now_s - self._saved_s if self._saved_s is not None else SAVE_S
        if waited_s < (SAVE_NEW_S if changes != self._saved_changes else SAVE_S):
            return
        self._saved_s, self._saved_changes = now_s, changes
        try:
            self.save(sightings, wall_offset_ns=wall_offset_ns)
        except OSError as error:
            self.problem = f"{self.path}: cannot be written: {error.strerror}"

    def _set_aside(self, error: Exception) -> None:
        try:
            where = f"set aside as {set_aside(self.path).name}, a new one begun"
        except OSError as other:
            where = f"cannot be set aside: {other.strerror}"
        reason = f"{type(error).__name__}: {error}".split("\n", 1)[0]
        self.problem = f"{self.path}: cannot be read ({reason}); {where}"


def read_tree(state_dir: Path) -> dict[str, Any] | None:
    """The file as it stands, for a reader; None where there is none. Raises `ValueError`, `OSError`."""
    try:
        tree: dict[str, Any] = json.loads((state_dir / FILE).read_bytes())
    except FileNotFoundError:
        return None
    for row in _checked(tree):
        _known(row)
    return tree


def tree_of(sightings: Sightings, *, wall_offset_ns: int) -> dict[str, Any]:
    """Every device, the one seen first first."""
    rows: list[dict[str, Any]] = []

    def collect(table: DeviceTable) -> None:
        rows.extend(_row(known, wall_offset_ns) for known in table.devices.values())

    sightings.read(collect)
    rows.sort(key=lambda row: (row["first_seen_ms"], row["device"]))
    return {"schema": SCHEMA, "counters": dict(sightings.counters()), "devices": rows}


def _checked(tree: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if tree["schema"] != SCHEMA or not isinstance(tree["devices"], list):
        raise ValueError(f"not {SCHEMA}")
    return tree["devices"]


def _row(known: Known, wall_offset_ns: int) -> dict[str, Any]:
    def wall_ms(event_ns: int) -> int:
        return (event_ns + wall_offset_ns) // MS

    return {
        "device": text(known.key),
        "first_seen_ms": wall_ms(known.first_ns) if known.first_ms is None else known.first_ms,
        "last_seen_ms": wall_ms(known.last_ns) if known.last_ms is None else known.last_ms,
        "protocols": [name for name in PROTOCOLS if known.protocols & BIT[name]],
        "serves_tcp_ports": sorted(known.serves),
        "uses_tcp_ports": sorted(known.uses),
        "router": known.carries,
        "addresses": [
            {
                "address": text(address),
                "first_seen_ms": wall_ms(held.first_ns) if held.first_ms is None else held.first_ms,
                "last_seen_ms": wall_ms(held.last_ns) if held.last_ms is None else held.last_ms,
                "claimed": held.claimed,
            }
            for address, held in known.addresses.items()
        ],
    }


def _known(row: Mapping[str, Any]) -> Known:
    """A device of an earlier run: its times are kept as they were written, until it is seen again."""
    addresses: OrderedDict[Endpoint, Held] = OrderedDict()
    for each in row["addresses"]:
        first_ms, last_ms = _number(each["first_seen_ms"]), _number(each["last_seen_ms"])
        addresses[parse(each["address"])] = Held(0, 0, bool(each["claimed"]), first_ms, last_ms)
    return Known(
        key=parse(row["device"]),
        first_ns=0,
        last_ns=0,
        first_ms=_number(row["first_seen_ms"]),
        last_ms=_number(row["last_seen_ms"]),
        protocols=sum(BIT[name] for name in set(row["protocols"]) if name in BIT),
        addresses=addresses,
        serves={_number(port) for port in row["serves_tcp_ports"]},
        uses={_number(port) for port in row["uses_tcp_ports"]},
        carries=bool(row["router"]),
    )


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"expected a whole number, got {value!r}")
    return value
