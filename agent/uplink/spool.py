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

import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from agent.errors import UplinkError, UplinkReason
from agent.uplink.message import Message

GROUP_ROWS = 32
GROUP_S = 0.05
"""A commit waits at most this long for company. DESIGN.md allows 100 ms; an alert has 500 ms in all."""
MEMORY_BYTES = 4_000_000
"""What may wait in memory while the disk takes nothing; about 2,500 findings."""
RETRY_S = 1.0
"""How long a disk that refused is left alone."""
CORRUPT = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

TABLES = """
CREATE TABLE IF NOT EXISTS queue (
    sequence INTEGER PRIMARY KEY, topic TEXT NOT NULL, payload BLOB NOT NULL, key TEXT NOT NULL,
    severity INTEGER NOT NULL, schema TEXT NOT NULL, expiry_s INTEGER NOT NULL,
    created_ns INTEGER NOT NULL, size INTEGER NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS queue_by_severity ON queue (severity, sequence);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
"""
INSERT = "INSERT OR REPLACE INTO queue VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
COLUMNS = "sequence, topic, payload, key, severity, schema, expiry_s, created_ns"


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
        self.path = path
        self.max_bytes = max_bytes
        self.sequence = 0
        self.problem: str | None = None
        self.set_aside: Path | None = None
        self.dropped = dict.fromkeys(range(1, 6), 0)
        self.n_commits = 0
        self.n_failed_commits = 0
        self._connect_seq = 0
        self._disk = threading.Lock()  # the connection; taken before _memory, never after it
        self._memory = threading.Condition(threading.Lock())
        self._pending: list[tuple[int, Message]] = []
        self._acknowledged: set[int] = set()
        self._stored_bytes = 0
        self._retry_at_s = 0.0
        self._db: sqlite3.Connection | None = None
        with self._disk:
            self._open()

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
                stored_bytes, dropped = self._write(rows, acknowledged, sequence)
            except UplinkError:
                with self._memory:
                    self.n_failed_commits += 1
                    self._bound_pending()
                raise
            written = {sequence for sequence, _ in rows}
            with self._memory:
                self._pending = [row for row in self._pending if row[0] not in written]
                self._acknowledged -= acknowledged
                self._stored_bytes = stored_bytes
                self.n_commits += 1
                for severity, n in dropped.items():
                    self.dropped[severity] += n
            return len(rows)

    def take(
        self, limit: int, *, skip_keys: Collection[str] = (), skip_topics: Collection[str] = ()
    ) -> list[tuple[int, Message]]:
        """Up to `limit` messages in sequence order, none of a key in `skip_keys`, at most one a key.

        A key of which any message waits for a topic in `skip_topics` is left out too. What is not yet
        on disk is not handed out, unless the disk refuses.
        """
        with self._disk:
            with self._memory:
                acknowledged = set(self._acknowledged)
                waiting = self._pending[:] if self.problem is not None else []
            rows = self._stored(limit + len(acknowledged), skip_keys, skip_topics)
        held = {m.key for _, m in waiting if m.topic in skip_topics} | set(skip_keys)
        rows += [(s, m) for s, m in waiting if m.key not in held]
        taken: dict[str, tuple[int, Message]] = {}
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
            self._connect_seq += 1
            with suppress(UplinkError), self._transaction() as db:
                _store_meta(db, "connect_seq", self._connect_seq)
            return self._connect_seq

    @property
    def depth(self) -> int:
        """Messages that the broker has not acknowledged."""
        return self.state().rows

    def state(self) -> SpoolState:
        """Figures for `health`."""
        with self._disk:
            stored, oldest = 0, None
            if self._db is not None:
                with suppress(sqlite3.Error):  # a disk that fails shows as `problem`
                    (stored,) = self._db.execute("SELECT count(*) FROM queue").fetchone()
                    query = "SELECT created_ns FROM queue ORDER BY sequence LIMIT 1"
                    oldest = next(iter(self._db.execute(query)), (None,))[0]
            with self._memory:
                waiting = [m.created_ns for _, m in self._pending]
                ages = [a for a in (oldest, *waiting) if a is not None]
                return SpoolState(
                    rows=max(0, stored + len(waiting) - len(self._acknowledged)),
                    size_bytes=self._stored_bytes + sum(m.size for _, m in self._pending),
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
            self._shut()

    # Below: the disk. Callers hold `_disk`; sqlite3 and its errors stay in this file.

    def _open(self) -> None:
        """Open the file, set aside what cannot be read; on failure leave `problem`."""
        self._retry_at_s = time.monotonic() + RETRY_S
        try:
            self._db = self._opened()
        except sqlite3.Error as error:
            if _code(error) in CORRUPT and self.set_aside is None:
                self._set_aside()
                self._open()
                return
            self._shut()
            if _code(error) == sqlite3.SQLITE_BUSY:
                message = f"{self.path}: in use by another wardwatch; stop that one first"
                raise UplinkError(UplinkReason.SPOOL, message, retriable=False) from error
            self.problem = self._words(error)
        else:
            self.problem = None

    def _opened(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            str(self.path) if self.path else ":memory:",
            isolation_level=None,
            check_same_thread=False,
            timeout=0.5,
        )
        try:
            # One process owns the file, and no shared-memory file is needed.
            db.execute("PRAGMA locking_mode=EXCLUSIVE")
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.execute("PRAGMA wal_autocheckpoint=256")
            db.execute("PRAGMA journal_size_limit=1048576")
            db.execute("PRAGMA cache_size=-512")
            if db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                error = sqlite3.DatabaseError("quick_check failed")
                error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
                raise error  # noqa: TRY301 -- same way out as SQLite's own report of it
            db.executescript(TABLES)
            meta = dict(db.execute("SELECT name, value FROM meta"))
            last, size = db.execute(
                "SELECT coalesce(max(sequence), 0), coalesce(sum(size), 0) FROM queue"
            ).fetchone()
        except BaseException:
            db.close()
            raise
        self.sequence = max(self.sequence, last, meta.get("sequence", 0))
        self._connect_seq = max(self._connect_seq, meta.get("connect_seq", 0))
        self._stored_bytes = size
        return db

    def _shut(self) -> None:
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
        self._db = None

    def _set_aside(self) -> None:
        """Rename the file, its log too, to the first free `NAME.corrupt-N`; never delete."""
        self._shut()
        if self.path is None:
            return
        n = next(i for i in range(1, 10_000) if not _aside(self.path, i).exists())
        self.set_aside = _aside(self.path, n)
        for suffix in ("-wal", "-shm", ""):
            with suppress(OSError):
                Path(f"{self.path}{suffix}").rename(f"{self.set_aside}{suffix}")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is on disk when it ends; sqlite3's errors become `UplinkError(SPOOL)`."""
        resting = self.problem is not None and time.monotonic() < self._retry_at_s
        if self._db is None and not resting:
            self._open()
        if self._db is None or resting:
            problem = self.problem or f"{self.path}: closed"
            raise UplinkError(UplinkReason.SPOOL, problem)
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield self._db
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            self._fail(error)
            raise UplinkError(UplinkReason.SPOOL, self._words(error)) from error
        self.problem = None

    def _fail(self, error: sqlite3.Error) -> None:
        self.problem = self._words(error)
        self._retry_at_s = time.monotonic() + RETRY_S
        if _code(error) in CORRUPT:
            self._set_aside()
            self._open()

    def _write(
        self, rows: list[tuple[int, Message]], acknowledged: set[int], sequence: int
    ) -> tuple[int, dict[int, int]]:
        """Insert, delete and bound in one transaction; bytes stored now, and drops by severity."""
        with self._transaction() as db:
            stored = self._stored_bytes
            for s, m in rows:
                if s not in acknowledged:
                    # "OR REPLACE": a commit that failed with an I/O error may yet have been written.
                    db.execute(INSERT, _row(s, m))
                    stored += m.size
            for s in acknowledged:
                query = "DELETE FROM queue WHERE sequence = ? RETURNING size"
                stored -= sum(size for (size,) in db.execute(query, (s,)))
            _store_meta(db, "sequence", sequence)
            dropped: dict[int, int] = {}
            while stored > self.max_bytes:
                lowest = db.execute(
                    "SELECT sequence, severity, size FROM queue ORDER BY severity, sequence LIMIT 1"
                ).fetchone()
                db.execute("DELETE FROM queue WHERE sequence = ?", lowest[:1])
                dropped[lowest[1]] = dropped.get(lowest[1], 0) + 1
                stored -= lowest[2]
        return stored, dropped

    def _stored(
        self, limit: int, skip_keys: Collection[str], skip_topics: Collection[str]
    ) -> list[tuple[int, Message]]:
        if self._db is None:
            return []
        keys = ",".join("?" * len(skip_keys))
        topics = ",".join("?" * len(skip_topics))
        query = (
            f"SELECT {COLUMNS} FROM queue WHERE key NOT IN ({keys}) AND key NOT IN "  # noqa: S608 -- only question marks
            f"(SELECT key FROM queue WHERE topic IN ({topics})) ORDER BY sequence LIMIT ?"
        )
        try:
            found = self._db.execute(query, (*skip_keys, *skip_topics, limit)).fetchall()
        except sqlite3.Error as error:
            self._fail(error)
            return []
        return [
            (
                row[0],
                Message(
                    topic=row[1],
                    payload=row[2],
                    key=row[3],
                    severity=row[4],
                    schema=row[5],
                    expiry_s=row[6],
                    created_ns=row[7],
                ),
            )
            for row in found
        ]

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

    def _words(self, error: sqlite3.Error) -> str:
        advice = ADVICE.get(_code(error), "findings wait in memory")
        return f"spool {self.path}: {error}; {advice}"


ADVICE = {
    sqlite3.SQLITE_FULL: "the disk is full: free space; findings wait in memory",
    sqlite3.SQLITE_READONLY: "it cannot be written to: check its owner and the mount; findings wait in memory",
    sqlite3.SQLITE_CANTOPEN: "make its folder, writable for this user; findings wait in memory",
    sqlite3.SQLITE_CORRUPT: "the file was set aside and a new one begun",
    sqlite3.SQLITE_NOTADB: "the file was set aside and a new one begun",
    sqlite3.SQLITE_IOERR: "the disk fails: check the card and the kernel log; findings wait in memory",
}


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 for errors of the sqlite3 module itself."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _aside(path: Path, n: int) -> Path:
    return path.with_name(f"{path.name}.corrupt-{n}")


def _row(sequence: int, m: Message) -> tuple[object, ...]:
    return (
        sequence,
        m.topic,
        m.payload,
        m.key,
        m.severity,
        m.schema,
        m.expiry_s,
        m.created_ns,
        m.size,
    )


def _store_meta(db: sqlite3.Connection, name: str, value: int) -> None:
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))
