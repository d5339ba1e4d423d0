"""The figures of this process and machine, and the one health record that is made of everybody's.

It never decides what is healthy, and never fails: a figure that the system does not give is null.

In: counters of the stages, as plain dicts. Out: `record`, JSON-safe, after docs/schemas/health-1.json;
names end in their unit, `_total` counts since the start. Raises: nothing.
Remembers: the CPU time at the last call (for its share), in `Process`.
Source: adjtimex(2); the Raspberry Pi's `get_throttled` (raspberrypi.com/documentation, config_txt).
"""

import ctypes
import json
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

SCHEMA_NAME = "wardwatch.health.v1"
TIME_ERROR = 5
"""adjtimex's state of a clock that nothing synchronises."""
TIMEX_BYTES = 512
"""More than any libc's struct timex; all zero means: change nothing."""
THROTTLED = Path("/sys/devices/platform/soc/soc:firmware/get_throttled")
UNDER_VOLTAGE_NOW, THROTTLED_NOW = 1 << 0, 1 << 2
DAY_S = 86_400.0


SETTLE_S = 60.0
"""After the start: making the spool and the first records is no day's work."""
MEASURED_S = 600.0
"""The shortest time from which a day is extrapolated."""
MARK_S = 3600.0
N_MARKS = 25
"""Marks an hour apart: the rate is of the last day."""


class DailyRate:
    """What grows, by the day: from a total that is read now and then. The start is left out."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque(maxlen=N_MARKS)

    def per_day(self, uptime_s: float, total: int) -> int | None:
        """By the growth of the last day at most; None while less than ten minutes are known."""
        if uptime_s < SETTLE_S:
            return None
        if not self._marks or uptime_s - self._marks[-1][0] >= MARK_S:
            self._marks.append((uptime_s, total))
        since_s, before = self._marks[0]
        if uptime_s - since_s < MEASURED_S:
            return None
        return round((total - before) * DAY_S / (uptime_s - since_s))


class Process:
    """Figures of this process and of the machine under it."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._process.cpu_percent()
        self._began_s = time.monotonic()
        self._began_bytes = self._written_bytes() or 0
        self._daily = DailyRate()

    @property
    def uptime_s(self) -> float:
        """Since this object was made: at the start of the agent."""
        return time.monotonic() - self._began_s

    def figures(self) -> dict[str, Any]:
        """Memory, CPU, threads, files, bytes written, temperature, power."""
        throttled = _throttled()
        return {
            "rss_bytes": self._process.memory_info().rss,
            "cpu_share": round(self._process.cpu_percent() / 100, 4),
            "n_threads": self._process.num_threads(),
            "n_open_files": self._process.num_fds(),
            "written_bytes_total": self._written_since(),
            "written_bytes_per_day": self._written_per_day(),
            "temperature_c": _temperature_c(),
            "under_voltage": None if throttled is None else bool(throttled & UNDER_VOLTAGE_NOW),
            "throttled": None if throttled is None else bool(throttled & THROTTLED_NOW),
        }

    def _written_bytes(self) -> int | None:
        try:
            return int(self._process.io_counters().write_bytes)
        except (psutil.Error, OSError, AttributeError):  # hidden by a strict unit
            return None

    def _written_since(self) -> int | None:
        written = self._written_bytes()
        return None if written is None else written - self._began_bytes

    def _written_per_day(self) -> int | None:
        written = self._written_since()
        return None if written is None else self._daily.per_day(self.uptime_s, written)


GAUGES: Mapping[str, tuple[str, ...]] = {
    "decode": ("mqtt_flows",),
    "features": ("hosts",),
    "findings": ("open",),
}
"""Of the stages' counters, what is so now; all others only grow."""


def split_counters(
    stages: Mapping[str, Mapping[str, int]],
) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, int]]]:
    """The stages' running totals, and what is so now, by stage."""
    totals = {
        stage: {k: n for k, n in counts.items() if k not in GAUGES.get(stage, ())}
        for stage, counts in stages.items()
    }
    now = {
        stage: {k: stages[stage][k] for k in names if k in stages[stage]}
        for stage, names in GAUGES.items()
        if stage in stages
    }
    return totals, now


def encrypted_share(decode: Mapping[str, int]) -> float | None:
    """Of the frames with MQTT data, the share on the port for TLS; None where there were none."""
    encrypted = decode.get("mqtt_encrypted_frames", 0)
    n = encrypted + decode.get("mqtt_plain_frames", 0)
    return round(encrypted / n, 4) if n else None


def clock_state() -> dict[str, Any]:
    """Whether the wall clock is synchronised, by the kernel's word, and where we are in this boot."""
    state: int | None = None
    with suppress(OSError, AttributeError):
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(TIMEX_BYTES))
    synced = None if state is None or state < 0 else state != TIME_ERROR
    return {
        "synced": synced,
        "source": "none" if synced is False else "ntp" if synced else "unknown",
        "boot_id": boot_id(),
        "monotonic_ms": time.monotonic_ns() // 1_000_000,
    }


def boot_id() -> str | None:
    """The kernel's id of this boot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def quantiles_us(durations_ns: Sequence[int]) -> dict[str, float | None]:
    """p50 and p99 in microseconds; null where nothing was timed."""
    if not durations_ns:
        return {"p50_us": None, "p99_us": None}
    ordered = sorted(durations_ns)
    last = len(ordered) - 1
    return {
        "p50_us": round(ordered[last // 2] / 1000, 1),
        "p99_us": round(ordered[min(last, round(last * 0.99))] / 1000, 1),
    }


def record(
    *,
    sequence: int,
    process: Process,
    agent: Mapping[str, Any],
    sources: Sequence[Mapping[str, Any]],
    scoring: Sequence[Mapping[str, Any]],
    spool: Mapping[str, Any],
    uplink: Mapping[str, Any],
    local: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One health record; `sequence` grows by one a record since the start. `local`: further parts, by name."""
    return {
        "schema": SCHEMA_NAME,
        "ts_ms": time.time_ns() // 1_000_000,
        "sequence": sequence,
        "uptime_s": round(process.uptime_s, 1),
        "agent": dict(agent),
        "sources": [dict(source) for source in sources],
        "scoring": [dict(row) for row in scoring],
        "spool": dict(spool),
        "uplink": dict(uplink),
        "process": process.figures(),
        "clock": clock_state(),
        **(local or {}),
    }


def to_bytes(health: Mapping[str, Any]) -> bytes:
    """The payload: compact JSON, UTF-8."""
    return json.dumps(health, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _temperature_c() -> float | None:
    with suppress(OSError, ValueError):
        text = Path("/sys/class/thermal/thermal_zone0/temp").read_text()
        return int(text) / 1000
    return None


def _throttled() -> int | None:
    with suppress(OSError, ValueError):
        return int(THROTTLED.read_text(), 16)
    return None
