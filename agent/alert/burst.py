"""A token bucket in event time, exact: integers only.

It never reads a clock. In: the event time at which a finding wants to be told, in nanoseconds.
Raises: `ConfigError` where the rate cannot be read. Remembers: one integer a bucket.

Source: ITU-T I.371 Annex A, the generic cell rate algorithm (virtual scheduling).
"""

from __future__ import annotations

from agent.errors import ConfigError

_UNIT_NS = {"s": 10**9, "min": 60 * 10**9, "h": 3600 * 10**9}


def parse_rate(rate: str) -> tuple[int, int]:
    """`5/min` as (5, ns of a minute); the number is the bucket's depth and what refills in that time."""
    number, _, unit = rate.partition("/")
    if not number.strip().isdecimal() or int(number) < 1 or unit.strip() not in _UNIT_NS:
        raise ConfigError(
            "alert.burst", f'must be like "5/min" (units {", ".join(_UNIT_NS)}): {rate!r}'
        )
    return int(number), _UNIT_NS[unit.strip()]


class TokenBucket:
    """`depth` events at once, then one every `period_ns / depth`."""

    def __init__(self, depth: int, period_ns: int) -> None:
        self._interval_ns = period_ns // depth
        self._burst_ns = self._interval_ns * (depth - 1)
        self._due_ns: int | None = None

    def take(self, now_ns: int) -> bool:
        """Whether there is a token at that time; if so it is taken."""
        due_ns = now_ns if self._due_ns is None else max(self._due_ns, now_ns)
        if due_ns - now_ns > self._burst_ns:
            return False
        self._due_ns = due_ns + self._interval_ns
        return True
