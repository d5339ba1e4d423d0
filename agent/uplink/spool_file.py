"""The spool's SQLite file: rows in, rows out, and what to do when the disk fails. sqlite3 stays in this file.

It never deletes a file that it cannot read: that is set aside under another name and reported in
`set_aside`. While the disk refuses, `problem` says why, and it is tried again after `RETRY_S`.

In: rows (sequence, message). Raises: `UplinkError(SPOOL)`. One thread at a time (the spool's lock).
Remembers, in the file: the queue, the last sequence, the connect sequence.
Source: sqlite.org/wal.html (synchronous=FULL syncs the log at each commit).
"""

import sqlite3
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.errors import UplinkError, UplinkReason
from agent.uplink.message import Message

Row = tuple[int, Message]
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


class SpoolFile:
    """One SQLite file, or memory where `path` is None."""

    def __init__(self, path: Path | None, *, max_bytes: int) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.problem: str | None = None
        self.set_aside: Path | None = None
        self.sequence = 0
        """The last sequence that is known to be on disk."""
        self.stored_bytes = 0
        self._connect_seq = 0
        self._retry_at_s = 0.0
        self._db: sqlite3.Connection | None = None
        self._open()

    def write(self, rows: list[Row], acknowledged: set[int], sequence: int) -> dict[int, int]:
        """Insert, delete and bound in one transaction; what was dropped for space, by severity."""
        with self._transaction() as db:
            stored = self.stored_bytes
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
        self.stored_bytes = stored
        return dropped

    def rows(
        self, limit: int, skip_keys: Collection[str], skip_topics: Collection[str]
    ) -> list[Row]:
        """The first rows, but none of a key in `skip_keys` or with a row for a topic in `skip_topics`."""
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

    def next_connect_seq(self) -> int:
        """A number that grows by one a CONNECT, on disk before it is used where the disk allows."""
        self._connect_seq += 1
        with suppress(UplinkError), self._transaction() as db:
            _store_meta(db, "connect_seq", self._connect_seq)
        return self._connect_seq

    def census(self) -> tuple[int, int | None]:
        """Rows on disk, and when the oldest was made (ns since the epoch)."""
        stored, oldest = 0, None
        if self._db is not None:
            with suppress(sqlite3.Error):  # a disk that fails shows as `problem`
                (stored,) = self._db.execute("SELECT count(*) FROM queue").fetchone()
                query = "SELECT created_ns FROM queue ORDER BY sequence LIMIT 1"
                oldest = next(iter(self._db.execute(query)), (None,))[0]
        return stored, oldest

    def close(self) -> None:
        """Close the file; nothing is lost by it."""
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
        self._db = None

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
            self.close()
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
        self.stored_bytes = size
        return db

    def _set_aside(self) -> None:
        """Rename the file, its log too, to the first free `NAME.corrupt-N`; never delete."""
        self.close()
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
