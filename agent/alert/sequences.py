"""Which events of which gateway have come, and so which are missing: for whoever receives them.

A gateway numbers its events, so a number that is left out is a loss, or an event that others overtook: it gets
`patience_s` to come. One that comes later still is said to be late; a gateway whose numbers fall back below what
was seen has begun anew (its spool was lost). An event that came twice (MQTT's at least once) is one.

It reads no clock and prints nothing. In: gateway, number and id of each event, the time by any clock that only goes
forward [s]. Out: lines for people. Raises: `ValueError` from `restored` where the text is not what `stored` wrote.
Remembers, bounded: per gateway (at most `MAX_GATEWAYS`) the last number and those missing; ids of events.

Source: the alert contract, "A finding event" (`metadata.sequence`).
"""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

SCHEMA_NAME = "wardwatch.alerts-state.v1"
MAX_GATEWAYS = 4096
MAX_MISSING = 10_000
"""Numbers that are waited for, a gateway; of a larger gap the older ones are named at once."""
MAX_GONE = 1_000
"""Numbers that are remembered as missing, a gateway: so many may still come late without a word of a new start."""
MAX_SEEN = 10_000
"""Ids of events that were shown; enough for what a broker sends again after a reconnect."""
MAX_STORED = 1_000
"""... and of those, how many outlive the process."""


@dataclass(slots=True)
class _Gateway:
    last: int | None = None
    missing: dict[int, float] = field(default_factory=dict)
    """Numbers that were left out, and since when."""
    gone: OrderedDict[int, None] = field(default_factory=OrderedDict)
    """Numbers that have been reported missing."""


class Sequences:
    """What has come, by gateway."""

    def __init__(self) -> None:
        self.n_missing = 0
        self._gateways: OrderedDict[str, _Gateway] = OrderedDict()
        self._seen: OrderedDict[str, None] = OrderedDict()

    def is_new(self, uid: str) -> bool:
        """Whether an event of that id comes for the first time; from now on it does not."""
        if uid in self._seen:
            return False
        self._seen[uid] = None
        if len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)
        return True

    def take(self, gateway: str, sequence: int, *, now_s: float) -> list[str]:
        """An event of that number came; what is to be said of it."""
        state = self._state_of(gateway)
        if state.missing.pop(sequence, None) is not None:
            return []
        if sequence in state.gone:
            del state.gone[sequence]
            self.n_missing = max(0, self.n_missing - 1)  # counted by the run before, maybe
            return [f"{gateway}: event {sequence} came late, after it was reported missing"]
        last, state.last = state.last, sequence
        if last is None:
            return []
        if sequence <= last:
            state.missing.clear()
            state.gone.clear()
            return [f"{gateway}: its numbers begin anew at {sequence} (last was {last})"]
        first = max(last + 1, sequence - MAX_MISSING)
        lines = []
        if first > last + 1:
            self.n_missing += first - last - 1
            lines = [_gap(gateway, last + 1, first - 1, first - last - 1)]
        state.missing.update(dict.fromkeys(range(first, sequence), now_s))
        return lines

    def gaps(self, *, now_s: float, patience_s: float) -> list[str]:
        """The numbers that have not come in that time, each named once."""
        lines = []
        for gateway, state in self._gateways.items():
            gone = [n for n, since_s in state.missing.items() if since_s <= now_s - patience_s]
            for number in gone:
                del state.missing[number]
                state.gone[number] = None
            while len(state.gone) > MAX_GONE:
                state.gone.popitem(last=False)
            if gone:
                self.n_missing += len(gone)
                lines.append(_gap(gateway, gone[0], gone[-1], len(gone)))
        return lines

    def stored(self) -> str:
        """Everything that the next run must know, as JSON; numbers that are waited for count as gone."""
        gateways = {
            name: {"last": state.last, "gone": [*state.gone, *state.missing][-MAX_GONE:]}
            for name, state in self._gateways.items()
        }
        seen = list(self._seen)[-MAX_STORED:]
        return json.dumps({"schema": SCHEMA_NAME, "gateways": gateways, "seen": seen})

    @classmethod
    def restored(cls, text: str) -> Sequences:
        """What `stored` wrote."""
        try:
            return cls._from_tree(json.loads(text))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a state of sequences: {error}") from error

    @classmethod
    def _from_tree(cls, tree: dict[str, Any]) -> Sequences:
        if tree["schema"] != SCHEMA_NAME:
            raise ValueError(tree["schema"])
        out = cls()
        for name, row in tree["gateways"].items():
            gone = OrderedDict.fromkeys(int(number) for number in row["gone"])
            last = None if row["last"] is None else int(row["last"])
            out._gateways[str(name)] = _Gateway(last=last, gone=gone)
        out._seen = OrderedDict.fromkeys(str(uid) for uid in tree["seen"])
        return out

    def _state_of(self, gateway: str) -> _Gateway:
        state = self._gateways.setdefault(gateway, _Gateway())
        self._gateways.move_to_end(gateway)
        if len(self._gateways) > MAX_GATEWAYS:
            self._gateways.popitem(last=False)
        return state


def _gap(gateway: str, first: int, last: int, n: int) -> str:
    span = str(first) if first == last else f"{first} to {last}"
    return f"{gateway}: gap: {n} event(s) missing ({span})"
