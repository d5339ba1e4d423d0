"""The queue on disk between findings and the broker: it outlives kill -9 and power loss.

It never forgets a committed message before `done` says that the broker acknowledged it, unless space
runs out: then the lowest severity goes first, oldest first, and is counted. It never deletes a file
that it cannot read: that is set aside under another name and reported. It never stops the agent: when
the disk is full or read-only, messages wait in memory (bounded) and are sent from there.

In: `put` (any thread), `done` (a broker's PUBACK below 0x80). Out: `take`, in sequence order, at most
one message a key. Raises: `UplinkError(SPOOL)` from the constructor (in use by another process) and
from `commit` (the disk does not take it; the rows stay in memory). Remembers: the sequence (grows by
one a message, for the life of the gateway) and the connect sequence, both in the file.

`put` costs no disk access: `run`, in a thread of its own, commits groups of at most 32 rows or 50 ms.
Source: sqlite.org/wal.html (synchronous=FULL syncs the log at each commit).
"""

import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent.errors import UplinkError
from agent.uplink.message import Message
from agent.uplink.spool_file import Row, SpoolFile

GROUP_ROWS = 32
GROUP_S = 0.05
"""A commit waits at most this long for company. DESIGN.md allows 100 ms; an alert has 500 ms in all."""
MEMORY_BYTES = 4_000_000
"""What may wait in memory while the disk takes nothing; about 2,500 findings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolState:
    """Figures for `health`."""

    rows: int
    size_bytes: int
    oldest_created_ns: int | None
    dropped_by_severity: dict[int, int]
    n_commits: int
    n_failed_commits: int
    problem: str | None
    """Why the disk does not take messages now; None: it does."""
    set_aside: str | None
    """The unreadable file that was renamed since the start, if any."""


class Spool:
    """A durable, bounded queue of messages in one SQLite file."""

    def __init__(self, path: Path | None, *, max_bytes: int = 50_000_000) -> None:
        """Open or make the file at `path` (None: memory only, for a replay)."""
        self.max_bytes = max_bytes
        self.dropped = dict.fromkeys(range(1, 6), 0)
        self.n_commits = 0
        self.n_failed_commits = 0
        self._disk = threading.Lock()  # the file; taken before _memory, never after it
        self._memory = threading.Condition(threading.Lock())
        self._pending: list[Row] = []
        self._acknowledged: set[int] = set()
        self._file = SpoolFile(path, max_bytes=max_bytes)
        self.sequence = self._file.sequence

    @property
    def problem(self) -> str | None:
        """Why the disk does not take messages now; None: it does."""
        return self._file.problem

    @property
    def set_aside(self) -> Path | None:
        """The unreadable file that was renamed since the start, if any."""
        return self._file.set_aside

    def put(self, make: Callable[[int], Message]) -> int:
        """Queue the message that `make(sequence)` builds; its sequence number."""
        with self._memory:
            sequence = self.sequence + 1
            self._pending.append((sequence, make(sequence)))
            self.sequence = sequence
            self._memory.notify_all()
        return sequence

    def run(self, stop: threading.Event, report: Callable[[UplinkError | None], None]) -> None:
        """Commit groups until `stop`; tell `report` when the disk refuses, and when it takes again."""
        refused = False
        while not stop.is_set():
            with self._memory:
                self._memory.wait_for(lambda: bool(self._pending or self._acknowledged), GROUP_S)
                if self._pending or self._acknowledged:
                    self._memory.wait_for(lambda: len(self._pending) >= GROUP_ROWS, GROUP_S)
            try:
                if self.commit() and refused:
                    refused = False
                    report(None)
            except UplinkError as error:
                if not refused:
                    report(error)
                refused = True
                stop.wait(GROUP_S)

    def commit(self) -> int:
        """Write what waits in memory, in one transaction; how many rows are now safe on disk."""
        with self._disk:
            with self._memory:
                rows = self._pending[:]
                acknowledged = set(self._acknowledged)
                sequence = self.sequence
                if not rows and not acknowledged:
                    return 0
            try:
                dropped = self._file.write(rows, acknowledged, sequence)
            except UplinkError:
                with self._memory:
                    self.n_failed_commits += 1
                    self._bound_pending()
                raise
            written = {sequence for sequence, _ in rows}
            with self._memory:
                self._pending = [row for row in self._pending if row[0] not in written]
                self._acknowledged -= acknowledged
                self.n_commits += 1
                for severity, n in dropped.items():
                    self.dropped[severity] += n
            return len(rows)

    def take(
        self, limit: int, *, skip_keys: Collection[str] = (), skip_topics: Collection[str] = ()
    ) -> list[Row]:
        """Up to `limit` messages in sequence order, none of a key in `skip_keys`, at most one a key.

        A key of which any message waits for a topic in `skip_topics` is left out too. What is not yet
        on disk is not handed out, unless the disk refuses.
        """
        with self._disk:
            with self._memory:
                acknowledged = set(self._acknowledged)
                waiting = self._pending[:] if self.problem is not None else []
            rows = self._file.rows(limit + len(acknowledged), skip_keys, skip_topics)
        held = {m.key for _, m in waiting if m.topic in skip_topics} | set(skip_keys)
        rows += [(s, m) for s, m in waiting if m.key not in held]
        taken: dict[str, Row] = {}
        for sequence, message in rows:
            if sequence not in acknowledged and len(taken) < limit:
                taken.setdefault(message.key, (sequence, message))
        return list(taken.values())

    def done(self, sequence: int) -> None:
        """The broker has it: the row leaves with the next commit."""
        with self._memory:
            self._acknowledged.add(sequence)
            self._memory.notify_all()

    def next_connect_seq(self) -> int:
        """A number that grows by one a CONNECT, on disk before it is used where the disk allows."""
        with self._disk:
            return self._file.next_connect_seq()

    @property
    def depth(self) -> int:
        """Messages that the broker has not acknowledged."""
        return self.state().rows

    def state(self) -> SpoolState:
        """Figures for `health`."""
        with self._disk:
            stored, oldest = self._file.census()
            with self._memory:
                waiting = [m.created_ns for _, m in self._pending]
                ages = [a for a in (oldest, *waiting) if a is not None]
                return SpoolState(
                    rows=max(0, stored + len(waiting) - len(self._acknowledged)),
                    size_bytes=self._file.stored_bytes + sum(m.size for _, m in self._pending),
                    oldest_created_ns=min(ages, default=None),
                    dropped_by_severity=dict(self.dropped),
                    n_commits=self.n_commits,
                    n_failed_commits=self.n_failed_commits,
                    problem=self.problem,
                    set_aside=str(self.set_aside) if self.set_aside else None,
                )

    def close(self) -> None:
        """Commit what waits, as far as the disk takes it, and close the file."""
        with suppress(UplinkError):
            self.commit()
        with self._disk:
            self._file.close()

    def _bound_pending(self) -> None:
        """Keep what waits in memory below its bound, without what is acknowledged; holds `_memory`."""
        gone = {s for s, _ in self._pending} & self._acknowledged
        self._pending = [row for row in self._pending if row[0] not in gone]
        self._acknowledged -= gone
        size = sum(m.size for _, m in self._pending)
        while size > min(MEMORY_BYTES, self.max_bytes):
            lowest = min(self._pending, key=lambda row: (row[1].severity, row[0]))
            self._pending.remove(lowest)
            self.dropped[lowest[1].severity] += 1
            size -= lowest[1].size
