"""A baseline on disk is the same baseline, or it is refused and nothing has changed."""

import json
import stat
from copy import deepcopy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import BaselineError, BaselineReason
from agent.features.ip_schema import SCHEMA
from agent.score.baseline import BaselineDetector
from agent.score.baseline_state import export, restore, snapshot
from agent.score.baseline_status import devices, summary
from tests.support.baselines import MONITOR, PUMP, QUICK, host, learned, matrix, quiet, row


def tables(detector):
    used = detector.profiles.used()
    return {name: table[used] for name, table in detector.profiles.tables().items()}


def assert_same(one, other):
    for name, table in tables(one).items():
        np.testing.assert_array_equal(table, tables(other)[name], err_msg=name)
    np.testing.assert_array_equal(one.budget.episodes, other.budget.episodes)
    np.testing.assert_array_equal(one.sample.rows, other.sample.rows)
    assert summary(one) | {"counters_total": {}} == summary(other) | {"counters_total": {}}
    assert devices(one) == devices(other)


def again(detector, path):
    snapshot(detector).write(path)
    other = BaselineDetector(SCHEMA, QUICK)
    restore(path, other)
    return other


second = st.lists(
    st.tuples(st.integers(0, 5), st.integers(6, 9), st.integers(1, 65535), st.integers(0, 10**6)),
    max_size=4,
    unique_by=lambda t: t[0],
)


@settings(max_examples=15, deadline=None)
@given(story=st.lists(second, max_size=40))
def test_what_is_saved_and_loaded_is_what_was_learned(story, tmp_path_factory):
    detector = learned()
    for i, rows in enumerate(story):
        many = [row(host(d), host(p), port, out_packets_1s=n + 1) for d, p, port, n in rows]
        if many:
            detector.learn(matrix((200 + i, many)))
    path = tmp_path_factory.mktemp("b") / "ward.npz"
    other = again(detector, path)
    assert_same(detector, other)
    after = matrix((400, [row(PUMP, out_packets_1s=4000), row(MONITOR)]))
    one = deepcopy(detector)
    one._held.clear()
    assert one.judge(after) == other.judge(after)


def test_it_goes_on_where_it_was_after_a_restart(tmp_path):
    """Half of the learning before the restart, half after it, at another time of the machine's clock."""
    detector = BaselineDetector(SCHEMA, QUICK)
    detector.judge(quiet(0, 100))
    other = again(detector, tmp_path / "ward.npz")
    assert summary(other)["state"] == "learning"
    other.judge(quiet(10, 170))
    assert summary(other)["state"] == "active"


def test_only_its_owner_may_read_it(tmp_path):
    path = tmp_path / "deep" / "ward.npz"
    snapshot(learned()).write(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["ward.npz"]


def changed(path, **changes):
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    meta = json.loads(arrays["meta"].tobytes()) | changes.pop("meta", {})
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    np.savez(path, **(arrays | changes))


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x55
    path.write_bytes(bytes(content))


def nothing(path):
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut, BaselineReason.MALFORMED),
        (flip, BaselineReason.MALFORMED),
        (nothing, BaselineReason.MALFORMED),
        (lambda p: p.write_text("{}"), BaselineReason.MALFORMED),
        (lambda p: changed(p, meta={"n_devices": 3}), BaselineReason.MALFORMED),
        (lambda p: changed(p, meta={"n_devices": 10**9}), BaselineReason.MALFORMED),
        (lambda p: changed(p, episodes=np.full(33, np.nan)), BaselineReason.MALFORMED),
        (lambda p: changed(p, profile_limit=np.zeros(3)), BaselineReason.MALFORMED),
        (lambda p: changed(p, meta={"version": 2}), BaselineReason.VERSION),
        (lambda p: changed(p, meta={"digest": "0" * 16}), BaselineReason.SCHEMA),
        (lambda p: p.unlink(), BaselineReason.NOT_FOUND),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_whole(tmp_path, damage, reason):
    path = tmp_path / "ward.npz"
    snapshot(learned()).write(path)
    damage(path)
    detector = learned(stop=150)
    before = deepcopy(detector)
    with pytest.raises(BaselineError) as caught:
        restore(path, detector)
    assert caught.value.reason is reason
    assert "\n" not in str(caught.value)
    assert_same(before, detector)


def test_a_folder_that_takes_nothing_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BaselineError, match="cannot be written"):
        snapshot(learned()).write(tmp_path / "file" / "ward.npz")


def test_the_export_holds_features_and_no_address(tmp_path):
    detector = learned()
    n = export(detector, tmp_path / "rows.npz")
    with np.load(tmp_path / "rows.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    assert set(arrays) == {"values", "schema_id", "schema_digest", "n_seen"}
    assert arrays["values"].shape == (n, len(SCHEMA))
    assert n == QUICK.max_sample_rows < int(arrays["n_seen"])
    assert str(arrays["schema_digest"]) == SCHEMA.digest
    known = {row.tobytes() for row in quiet(0, 200).values}
    assert all(row.tobytes() in known for row in arrays["values"])


def test_the_sample_takes_no_flagged_row_and_is_even():
    detector = learned(stop=300)
    for second in range(300, 400):
        detector.judge(matrix((second, [row(PUMP, out_packets_1s=4000)])))
    detector.judge(quiet(400, 600))
    sent = detector.sample.rows[:, SCHEMA.index["out_packets_1s"]]
    assert sent.max() < 4000
    assert len(sent) == QUICK.max_sample_rows
