"""Counts hostile packets of one finding from windows that overlap, without counting any twice.

A row of the long horizon counts the last 60 s, each second anew. The meter takes a whole window where
it cannot overlap what was counted, and in between only what a window holds above the one counted last:
never more than there were, and exact whenever a whole window has passed.

In: counts by host, with the end of their window, in the order of time. Remembers: `MAX_KEYS` hosts;
further ones share a place, of which the largest counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.records import NOBODY, Endpoint

MAX_KEYS = 64


@dataclass(slots=True)
class _Reading:
    counted_ns: int
    """End of the window that was counted whole last."""
    counted: int
    """What it held."""
    last_ns: int
    """End of the latest window seen."""
    before: int
    """Packets up to `counted_ns`."""
    since: int = 0
    """Packets after it, at least."""


class Meter:
    """The hostile packets that windows of one length have seen, from one side of the attack."""

    def __init__(self, window_s: int) -> None:
        self._window_ns = window_s * 10**9
        self._by_host: dict[Endpoint, _Reading] = {}

    @property
    def total(self) -> int:
        """So far; it never falls."""
        return sum(r.before + r.since for r in self._by_host.values())

    def add(self, host: Endpoint, count: int, end_ns: int) -> None:
        """A window of `host` that ended at `end_ns` held `count`."""
        if host not in self._by_host and len(self._by_host) >= MAX_KEYS:
            host = NOBODY
        reading = self._by_host.get(host)
        if reading is None:
            self._by_host[host] = _Reading(end_ns, count, end_ns, before=count)
            return
        if end_ns - reading.counted_ns < self._window_ns:
            reading.since = max(reading.since, count - reading.counted)
        else:
            overlaps = end_ns - reading.last_ns < self._window_ns
            reading.before += max(reading.since, count) if overlaps else reading.since + count
            reading.counted_ns, reading.counted, reading.since = end_ns, count, 0
        reading.last_ns = max(reading.last_ns, end_ns)
