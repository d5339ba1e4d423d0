"""What is normal, per device, per device class and for the ward: bounded tables, forgotten slowly.

A profile holds, of each rate, a histogram over its steps; of peers and ports the set that was seen (at most `N_IDS`
each: a device with more has an open set, and nobody is new to it); of each protocol whether it was seen. The
*limit* of a rate is the highest step that at least `RARE` slices reached, so a single odd second moves nothing. The
*anchor* is the limit at the end of learning: it stays, however the limit moves. Profiles `0 .. max_devices - 1` are
devices, then come the classes, last the ward.

It never sees a frame, and it never says what is unusual. In: rows of steps by profile number. Remembers: at
most `max_devices` devices. When the table is full, who was seen least goes first, never one that is learned and in
use; evictions and refusals are counted. Raises nothing. Times are the baseline's own [ns].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.records import MAC_HI, Endpoint
from agent.score.baseline_features import N_BINS, PROTOCOLS, RATES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.records import F32, I64, U8, U64, BoolArray

MAX_CLASSES = 64
N_IDS = 32
"""Peers, ports used and own ports that are remembered of a device, each; above what a bedside device has."""
PEERS, PORTS_OUT, PORTS_IN = range(3)
ID_KINDS = (PEERS, PEERS, PORTS_OUT, PORTS_IN)
"""Of peer sent to, peer received from, port used, own port used."""
EVERY = 7
"""One slice of so many is learned whole, with that weight; of the others what is beyond what is known. No period of a
device's own is likely to be a multiple of it."""
RARE = 3.0
"""Slices that must have reached a step for it to be normal."""
SEEN = 0.05
"""Of a protocol: what is left of one sighting after four half-lives, about."""
FORGET_HALF_LIVES = 4.0
"""A peer, a port or a device that was not seen for so long is new again."""
HOUR_NS = 3600 * 10**9
NO_ANCHOR = 250
"""Above every step, with room for what may be added to it."""
_KINDS = np.array(ID_KINDS)
_CHUNK = 64
_NEVER = -1


class Profiles:
    """The tables. Rows of every array are profile numbers."""

    def __init__(self, max_devices: int) -> None:
        self.max_devices = max_devices
        self.ward = max_devices + MAX_CLASSES
        n = self.ward + 1
        self.classes: list[str] = []
        """The n-th class has profile `max_devices + n`."""
        self.histogram: F32 = np.zeros((n, len(RATES), N_BINS), np.float32)
        self.limit: U8 = np.zeros((n, len(RATES)), np.uint8)
        self.anchor: U8 = np.full((n, len(RATES)), NO_ANCHOR, np.uint8)
        self.protocols: F32 = np.zeros((n, len(PROTOCOLS)), np.float32)
        self.ids: U64 = np.zeros((n, 3, N_IDS), np.uint64)
        self.id_ns: I64 = np.zeros((n, 3, N_IDS), np.int64)
        """When each was last seen."""
        self.open_sets: BoolArray = np.zeros((n, 3), np.bool_)
        self.learned: BoolArray = np.zeros(n, np.bool_)
        self.accepting: BoolArray = np.zeros(n, np.bool_)
        """Somebody said that what it does now is right: it learns whatever is found."""
        self.slices: I64 = np.zeros(n, np.int64)
        """Rows learned since `begun_ns`."""
        self.seen: I64 = np.zeros(n, np.int64)
        """Rows seen, learned or not."""
        self.since_ns: I64 = np.zeros(n, np.int64)
        self.begun_ns: I64 = np.zeros(n, np.int64)
        """Where the present learning began."""
        self.last_ns: I64 = np.full(n, _NEVER, np.int64)
        self.hi: U64 = np.zeros(n, np.uint64)
        self.lo: U64 = np.zeros(n, np.uint64)
        self.mac: U64 = np.zeros(n, np.uint64)
        """The MAC address that it was last seen with; 0 unknown."""
        self.class_of: NDArray[np.int16] = np.full(n, -1, np.int16)
        self.tenant: I64 = np.zeros(n, np.int64)
        """Grows when the number gets another device."""
        self._recent: U64 = np.zeros((n, len(ID_KINDS)), np.uint64)
        """A peer or port that each profile is known to have seen."""
        self.n_evicted = 0
        self.n_refused = 0
        self.n_forgotten = 0
        self._number: dict[int, int] = {}
        """By the 128 bits of the address."""
        self._free = list(range(max_devices - 1, -1, -1))
        self.last_ns[self.ward] = 0

    def __len__(self) -> int:
        return len(self._number)

    def number_of(self, device: Endpoint) -> int | None:
        """The profile of an address; None: it has none."""
        return self._number.get(device.hi << 64 | device.lo)

    def numbers_of(self, device: Endpoint) -> I64:
        """The profiles of an address, or of whoever was last seen with a MAC address."""
        number = self.number_of(device)
        found = [] if number is None else [number]
        if device.hi == MAC_HI:
            found += [n for n in self.devices() if int(self.mac[n]) == device.lo and n != number]
        return np.array(found, np.int64)

    def device(self, number: int) -> Endpoint:
        """Whose profile it is."""
        return Endpoint(int(self.hi[number]), int(self.lo[number]))

    def devices(self) -> list[int]:
        """The profiles in use, in the order of addresses."""
        return [number for _, number in sorted(self._number.items())]

    def used(self) -> I64:
        """All profiles in use: devices, classes, the ward."""
        classes = range(self.max_devices, self.max_devices + len(self.classes))
        return np.array([*self.devices(), *classes, self.ward], np.int64)

    def lookup(self, hi: U64, lo: U64) -> I64:
        """(n,) profile of each address, -1 where it has none."""
        keys = lo.tolist()
        if hi.any():
            keys = [h << 64 | low for h, low in zip(hi.tolist(), keys, strict=True)]
        get = self._number.get
        return np.array([get(key, -1) for key in keys], np.int64)

    def admit(self, devices: list[tuple[int, int]], now_ns: int) -> tuple[I64, I64]:
        """Profiles for new devices (-1: there is no room), and those numbers that were taken from others."""
        wanted = len(devices) - len(self._free)
        gone = self._make_room(wanted, now_ns) if wanted > 0 else np.zeros(0, np.int64)
        numbers = np.full(len(devices), -1, np.int64)
        for i, (hi, lo) in enumerate(devices):
            if not self._free:
                self.n_refused += len(devices) - i
                break
            number = self._free.pop()
            self._number[hi << 64 | lo] = number
            self.hi[number], self.lo[number] = hi, lo
            self.since_ns[number] = self.begun_ns[number] = self.last_ns[number] = now_ns
            numbers[i] = number
        return numbers, gone

    def class_number(self, name: str, now_ns: int) -> int:
        """The place of a class in `classes`; -1 where there are too many."""
        if name in self.classes:
            return self.classes.index(name)
        if len(self.classes) >= MAX_CLASSES:
            return -1
        self.classes.append(name)
        number = self.max_devices + len(self.classes) - 1
        self.since_ns[number] = self.begun_ns[number] = self.last_ns[number] = now_ns
        return len(self.classes) - 1

    def drop(self, numbers: I64) -> None:
        """Forget these devices altogether."""
        for number in numbers.tolist():
            del self._number[int(self.hi[number]) << 64 | int(self.lo[number])]
        self._free.extend(numbers[::-1].tolist())
        self.clear(numbers)

    def clear(self, numbers: I64) -> None:
        """Empty these profiles."""
        for table in self.tables().values():
            table[numbers] = 0
        self.last_ns[numbers] = _NEVER
        self.anchor[numbers] = NO_ANCHOR
        self.class_of[numbers] = -1
        self.tenant[numbers] += 1
        self._recent[numbers] = 0

    def tables(self) -> Mapping[str, NDArray[Any]]:
        """Every array that says what a profile holds, by name: what is stored."""
        names = (
            *("histogram", "limit", "anchor", "protocols", "ids", "id_ns", "open_sets", "learned"),
            *("accepting", "slices", "seen", "since_ns", "begun_ns", "last_ns", "hi", "lo"),
            *("mac", "class_of"),
        )
        return {name: getattr(self, name) for name in names}

    def put_back(self, devices: I64) -> None:
        """The tables were filled from a file, with these devices."""
        self._number = {int(self.hi[n]) << 64 | int(self.lo[n]): n for n in devices.tolist()}
        taken = set(devices.tolist())
        self._free = [n for n in range(self.max_devices - 1, -1, -1) if n not in taken]

    # -- learning

    def count(self, numbers: I64) -> None:
        """These devices showed one more row to learn from; their classes and the ward did, too."""
        self.slices[numbers] += 1
        classes = self.class_of[numbers]
        per_class = np.bincount(classes[classes >= 0], minlength=len(self.classes))
        self.slices[self.max_devices : self.max_devices + len(per_class)] += per_class
        self.slices[self.ward] += len(numbers)

    def is_beyond(self, numbers: I64, steps: U8, spoken: BoolArray, ids: U64) -> BoolArray:
        """(n,) whether a row shows something that its device is not known for."""
        beyond = (steps > self.limit[numbers]).any(axis=1)
        beyond |= (spoken & (self.protocols[numbers] < SEEN)).any(axis=1)
        return np.asarray(beyond | self.are_new(numbers, ids).any(axis=1))

    def learn_rates(self, numbers: I64, steps: U8, spoken: BoolArray, weights: F32) -> None:
        """Rows of one slice: of each device at most one; classes and the ward take any number."""
        rates = np.arange(len(RATES))
        self._add(numbers, rates * N_BINS + steps, weights[:, None])
        self.protocols[numbers] += spoken * weights[:, None]
        at, rate = np.nonzero(steps > self.limit[numbers])
        self._raise_limits(numbers[at], rate)
        for shared, rows in self._shared(numbers):
            flat = (rates * N_BINS + steps[rows]).ravel()
            heavy = np.repeat(weights[rows], len(RATES))
            counts = np.bincount(flat, weights=heavy, minlength=len(RATES) * N_BINS)
            self.histogram[shared] += counts.reshape(len(RATES), N_BINS)
            self.protocols[shared] += (spoken[rows] * weights[rows, None]).sum(axis=0)
            higher = np.flatnonzero(steps[rows].max(axis=0) > self.limit[shared])
            self._raise_limits(np.full(len(higher), shared), higher)

    def _add(self, numbers: I64, cells: NDArray[np.intp], weights: F32) -> None:
        """Add to cells (n, n_rates) of the histograms of profiles that are each named once."""
        flat = self.histogram.reshape(-1)
        flat[numbers[:, None] * (len(RATES) * N_BINS) + cells] += weights

    def _shared(self, numbers: I64) -> list[tuple[int, I64]]:
        classes = self.class_of[numbers]
        rows = [
            (self.max_devices + c, np.flatnonzero(classes == c))
            for c in set(classes.tolist()) - {-1}
        ]
        return [*rows, (self.ward, np.arange(len(numbers)))] if len(numbers) else []

    def learn_ids(self, numbers: I64, ids: U64, now_ns: int) -> None:
        """(n, 4) peers and ports of rows (0: none), one a device; ports are learned for its class, too."""
        classes = self.class_of[numbers].astype(np.int64)
        classed = np.flatnonzero(classes >= 0)
        shared = self.max_devices + classes[classed]
        new = self.are_new(shared, ids[classed])
        for which, kind in enumerate(ID_KINDS):
            self._learn_ids(numbers, kind, ids[:, which], now_ns)
            if kind != PEERS:
                for row in np.flatnonzero(new[:, which]).tolist():
                    key = ids[classed[row : row + 1], which]
                    self._learn_ids(shared[row : row + 1], kind, key, now_ns)

    def _learn_ids(self, numbers: I64, kind: int, keys: U64, now_ns: int) -> None:
        there = keys != 0
        numbers, keys = numbers[there], keys[there]
        hit = self.ids[numbers, kind] == keys[:, None]
        known = hit.any(axis=1)
        self.id_ns[numbers[known], kind, hit[known].argmax(axis=1)] = now_ns
        for number, key in zip(numbers[~known].tolist(), keys[~known], strict=True):
            free = np.flatnonzero(self.ids[number, kind] == 0)
            if len(free):
                self.ids[number, kind, free[0]] = key
                self.id_ns[number, kind, free[0]] = now_ns
            else:
                self.open_sets[number, kind] = True

    def are_new(self, numbers: I64, ids: U64) -> BoolArray:
        """(n, 4) whether a profile has never seen this peer or port; never where its set is open.

        What was known of a profile last time is not looked up again.
        """
        new: BoolArray = (ids != self._recent[numbers]) & (ids != 0)
        rows, which = np.nonzero(new)
        if len(rows):
            at, keys, kinds = numbers[rows], ids[rows, which], _KINDS[which]
            known = (self.ids[at, kinds] == keys[:, None]).any(axis=1)
            self._recent[at[known], which[known]] = keys[known]
            new[rows, which] = ~known & ~self.open_sets[at, kinds]
        return new

    def ripen(self, numbers: I64, now_ns: int, *, learn_ns: float, min_slices: int) -> None:
        """Whoever has been learned for long enough, classes and ward too, is known now: its anchor is set."""
        shared = [*range(self.max_devices, self.max_devices + len(self.classes)), self.ward]
        numbers = np.concatenate([numbers, shared])
        numbers = numbers[~self.learned[numbers]]
        enough = now_ns - self.begun_ns[numbers] >= learn_ns
        ripe = numbers[enough & (self.slices[numbers] >= min_slices)]
        if len(ripe):
            self.anchor[ripe] = self.limit[ripe]
            self.learned[ripe] = True
            self.accepting[ripe] = False

    def learn_again(self, numbers: I64, now_ns: int) -> None:
        """Go on learning from now, with what is known; the anchor is set anew at its end."""
        self.learned[numbers] = False
        self.anchor[numbers] = NO_ANCHOR
        self.accepting[numbers] = True
        self.begun_ns[numbers] = now_ns
        self.slices[numbers] = 0

    def fade(self, elapsed_ns: int, half_life_ns: float, now_ns: int) -> None:
        """Forget a little, and devices that were not seen for long; called every hour or so."""
        devices = np.array(self.devices(), np.int64)
        idle = devices[now_ns - self.last_ns[devices] > FORGET_HALF_LIVES * half_life_ns]
        self.n_forgotten += len(idle)
        self.drop(idle)
        used = self.used()
        kept = np.float32(0.5 ** (elapsed_ns / half_life_ns))
        for part in np.array_split(used, max(1, len(used) // _CHUNK)):
            self.histogram[part] *= kept
            self.protocols[part] *= kept
            self.limit[part] = _limits(self.histogram[part])
        ids = self.ids[used]
        old = (ids != 0) & (now_ns - self.id_ns[used] > FORGET_HALF_LIVES * half_life_ns)
        ids[old] = 0
        self.ids[used] = ids
        self._recent[used] = 0

    def _raise_limits(self, numbers: I64, rates: I64) -> None:
        if len(numbers):
            self.limit[numbers, rates] = _limits(self.histogram[numbers, rates])

    def _make_room(self, wanted: int, now_ns: int) -> I64:
        """Free numbers of devices that are not learned: who was seen least, then longest ago."""
        numbers = np.array(list(self._number.values()), np.int64)
        young = numbers[~self.learned[numbers] & (self.last_ns[numbers] < now_ns)]
        order = np.lexsort((young, self.last_ns[young], self.seen[young]))
        gone = young[order[:wanted]]
        self.n_evicted += len(gone)
        self.drop(gone)
        return gone

    # -- showing

    def normal(self, number: int, rate: int) -> int:
        """The median step of a rate."""
        weights = self.histogram[number, rate].cumsum()
        return int(np.searchsorted(weights, weights[-1] / 2)) if weights[-1] > 0 else 0


def _limits(histograms: F32) -> U8:
    """(..., n_bins) to (...): the highest step that `RARE` slices reached."""
    reached = histograms[..., ::-1].cumsum(axis=-1, dtype=np.float64) >= RARE
    highest = N_BINS - 1 - reached.argmax(axis=-1)
    return np.where(reached.any(axis=-1), highest, 0).astype(np.uint8)
