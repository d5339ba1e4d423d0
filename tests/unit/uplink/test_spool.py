"""The spool as its users meet it: kill -9, a full disk, a corrupt file, two processes, a small bound."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agent.errors import UplinkError, UplinkReason
from agent.uplink.message import Message
from agent.uplink.spool import Spool


def message(sequence: int, *, key: str = "", severity: int = 3, topic: str = "a", size: int = 10):
    return Message(
        topic=topic,
        payload=b"%0*d" % (size, sequence),
        key=key or f"finding-{sequence}",
        severity=severity,
        schema="finding",
        expiry_s=60,
        created_ns=1_000 + sequence,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


def sequences(spool: Spool, limit: int = 100, **skip: set[str]) -> list[int]:
    return [sequence for sequence, _ in spool.take(limit, **skip)]


def test_what_is_put_is_taken_in_order_and_stays_until_it_is_done(path: Path):
    spool = Spool(path)
    assert [spool.put(message) for _ in range(5)] == [1, 2, 3, 4, 5]
    assert sequences(spool) == []  # not on disk yet, so not handed out
    assert spool.commit() == 5
    assert sequences(spool, 3) == [1, 2, 3]
    assert sequences(spool, 3) == [1, 2, 3]
    spool.done(2)
    assert sequences(spool, 3) == [1, 3, 4]
    spool.commit()
    assert sequences(spool) == [1, 3, 4, 5]
    assert spool.take(1)[0][1] == message(1)
    spool.close()


def test_the_sequence_and_the_rows_outlive_a_restart(path: Path):
    spool = Spool(path)
    for _ in range(3):
        spool.put(message)
    spool.commit()
    for sequence in (1, 2, 3):
        spool.done(sequence)
    assert spool.next_connect_seq() == 1
    spool.close()

    spool = Spool(path)
    assert sequences(spool) == []
    assert spool.put(message) == 4  # no number is used twice, though the queue was empty
    assert spool.next_connect_seq() == 2
    spool.close()
    spool = Spool(path)
    assert sequences(spool) == [4]
    spool.close()


def test_events_of_one_finding_go_one_at_a_time(path: Path):
    spool = Spool(path)
    for key in ("a", "b", "a", "c", "b"):
        spool.put(lambda sequence, key=key: message(sequence, key=key))
    spool.commit()
    assert sequences(spool) == [1, 2, 4]
    assert sequences(spool, skip_keys={"a"}) == [2, 4]
    spool.done(1)
    assert sequences(spool) == [2, 3, 4]
    spool.close()


def test_a_refused_topic_holds_its_findings_back_and_no_other(path: Path):
    spool = Spool(path)
    for key, topic in (("a", "low"), ("b", "low"), ("a", "high"), ("c", "high")):
        spool.put(lambda sequence, k=key, t=topic: message(sequence, key=k, topic=t))
    spool.commit()
    assert sequences(spool, skip_topics={"low"}) == [4]  # 3 must not overtake 1
    spool.close()


def test_space_is_bounded_and_the_lowest_severity_goes_first(path: Path):
    size = message(1, size=100, key="1234567890").size
    spool = Spool(path, max_bytes=4 * size)
    for severity in (1, 4, 2, 5, 1, 3):
        spool.put(
            lambda sequence, s=severity: message(sequence, severity=s, size=100, key="1234567890")
        )
    spool.commit()
    spool.close()
    spool = Spool(path, max_bytes=4 * size)
    state = spool.state()
    assert state.rows == 4
    assert state.size_bytes <= 4 * size
    taken = []
    while rows := spool.take(10):
        taken += [(sequence, m.severity) for sequence, m in rows]
        for sequence, _ in rows:
            spool.done(sequence)
    assert taken == [(2, 4), (3, 2), (4, 5), (6, 3)]
    spool.close()


def test_drops_are_counted_by_severity(path: Path):
    size = message(1, size=100).size
    spool = Spool(path, max_bytes=2 * size)
    for severity in (2, 2, 1, 5):
        spool.put(lambda sequence, s=severity: message(sequence, severity=s, size=100))
    spool.commit()
    assert spool.state().dropped_by_severity == {1: 1, 2: 1, 3: 0, 4: 0, 5: 0}
    spool.close()


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.unit.uplink.test_spool import message
from agent.uplink.spool import Spool
spool = Spool(Path(sys.argv[1]))
while True:
    first = spool.sequence + 1
    for _ in range(7):
        spool.put(message)
    spool.commit()
    print(spool.sequence, flush=True)
"""


def test_kill_9_loses_nothing_that_was_committed(path: Path):
    root = str(Path(__file__).parents[3])
    committed = 0
    for _ in range(5):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), root], stdout=subprocess.PIPE, text=True
        )
        with writer:
            assert writer.stdout is not None
            for _ in range(20):
                committed = int(writer.stdout.readline())
            os.kill(writer.pid, signal.SIGKILL)
            for line in writer.stdout.read().splitlines():
                committed = int(line)
        spool = Spool(path)
        assert spool.set_aside is None
        found = sequences(spool, 1_000_000)
        assert found == list(range(1, len(found) + 1))
        assert committed <= len(found) <= committed + 7
        spool.close()


def test_a_corrupt_file_is_set_aside_and_never_deleted(path: Path):
    garbage = b"this is not a database" * 500
    path.write_bytes(garbage)
    spool = Spool(path)
    assert spool.set_aside is not None
    assert spool.set_aside.read_bytes() == garbage
    assert spool.state().set_aside == f"{path}.corrupt-1"
    spool.put(message)
    assert spool.commit() == 1
    spool.close()
    path.write_bytes(garbage)
    spool = Spool(path)
    assert spool.set_aside == Path(f"{path}.corrupt-2")
    spool.close()


def test_pages_that_rot_while_open_cost_no_message_that_is_put_later(path: Path):
    spool = Spool(path)
    for _ in range(300):
        spool.put(lambda sequence: message(sequence, size=1000))
    spool.commit()
    spool.close()
    size = path.stat().st_size
    with path.open("r+b") as file:  # the header stays, the pages of the table do not
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))
    spool = Spool(path)
    assert spool.set_aside is not None
    spool.put(message)
    spool.commit()
    assert len(sequences(spool)) == 1
    spool.close()


def test_a_second_agent_on_one_spool_is_refused_in_one_line(path: Path):
    first = Spool(path)
    first.put(message)
    first.commit()
    with pytest.raises(UplinkError, match="in use by another wardwatch") as caught:
        Spool(path)
    assert caught.value.reason is UplinkReason.SPOOL
    assert caught.value.exit_status == 1
    first.close()


def test_without_a_folder_messages_wait_in_memory_and_reach_the_disk_later(tmp_path: Path):
    path = tmp_path / "missing" / "spool.db"
    spool = Spool(path)
    assert "make its folder" in str(spool.problem)
    spool.put(message)
    with pytest.raises(UplinkError, match="make its folder"):
        spool.commit()
    assert sequences(spool) == [1]  # sent from memory: the agent goes on
    assert spool.state().n_failed_commits == 1
    path.parent.mkdir()
    spool._file._retry_at_s = 0.0
    assert spool.commit() == 1
    assert spool.problem is None
    spool.close()
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM queue").fetchone() == (1,)
    db.close()


@pytest.mark.root
def test_a_full_disk_is_said_and_survived(tmp_path: Path):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", disk], check=True)
    try:
        spool = Spool(disk / "spool.db")
        written = 0
        with pytest.raises(UplinkError, match="disk is full"):  # noqa: PT012 -- which one is refused depends on the disk
            for _ in range(300):
                spool.put(lambda sequence: message(sequence, size=4000))
                written += spool.commit()
        assert written > 0
        assert len(sequences(spool, 1000)) == written + 1  # the refused one waits in memory
        assert "full" in str(spool.state().problem)
        subprocess.run(["mount", "-o", "remount,size=2m", disk], check=True)
        spool._file._retry_at_s = 0.0
        assert spool.commit() == 1
        assert spool.state().problem is None
        spool.close()
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_the_writer_thread_commits_without_being_asked(path: Path):
    spool = Spool(path)
    stop = threading.Event()
    reports: list[UplinkError | None] = []
    writer = threading.Thread(target=spool.run, args=(stop, reports.append))
    writer.start()
    for _ in range(100):
        spool.put(message)
    for _ in range(500):
        if len(sequences(spool)) == 100:
            break
        stop.wait(0.01)
    assert len(sequences(spool)) == 100
    assert spool.state().n_commits < 50  # grouped
    stop.set()
    writer.join()
    spool.close()
    assert reports == []
