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
    first_ns: int
    """End of the first window since the last one that was counted whole."""
    counted_ns: int
    """End of the window that was counted last; what ends a window later does not overlap it."""
    counted: int
    last_ns: int
    last: int
    before: int = 0
    since: int = 0


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
            long_ago = end_ns - self._window_ns
            reading = self._by_host[host] = _Reading(end_ns, long_ago, 0, end_ns, count)
        elif end_ns - reading.first_ns >= self._window_ns:
            reading.before += reading.since
            reading.since = 0
            reading.first_ns = end_ns
            reading.counted_ns, reading.counted = reading.last_ns, reading.last
        apart = end_ns - reading.counted_ns >= self._window_ns
        reading.since = max(reading.since, count if apart else count - reading.counted)
        reading.last = max(reading.last, count) if end_ns == reading.last_ns else count
        reading.last_ns = end_ns
