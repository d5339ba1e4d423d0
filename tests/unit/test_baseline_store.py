"""The service's hold on the baselines' files, and what people may ask of it."""

import threading

import pytest

from agent.baseline_store import (
    BaselineStore,
    Kept,
    Request,
    apply,
    ask,
    file_of,
    locked,
    read_request,
    sources_in,
)
from agent.errors import BaselineError
from agent.features.ip_schema import SCHEMA
from agent.score.baseline import BaselineDetector
from agent.score.baseline_status import summary
from tests.support.baselines import QUICK, learned


def kept(detector, name="ward"):
    return Kept(name=name, detector=detector, lock=threading.Lock())


@pytest.fixture
def store(tmp_path):
    store = BaselineStore(tmp_path, [kept(learned())])
    store.open()
    yield store
    store.close()


def test_it_is_saved_at_the_end_and_there_again_at_the_start(tmp_path):
    first = BaselineStore(tmp_path, [kept(learned())])
    first.open()
    first.close()
    detector = BaselineDetector(SCHEMA, QUICK)
    second = BaselineStore(tmp_path, [kept(detector)])
    second.open()
    assert summary(detector)["n_learned_devices"] == 2
    assert sources_in(second.folder) == ["ward"]
    second.close()


def test_a_corrupt_file_is_set_aside_and_said(tmp_path):
    folder = tmp_path / "baseline"
    folder.mkdir()
    file_of(folder, "ward").write_bytes(b"PK not really")
    store = BaselineStore(tmp_path, [kept(BaselineDetector(SCHEMA, QUICK))])
    store.open()
    (row,) = store.health()
    assert "set aside as ward.npz.corrupt-1" in row["problem"]
    assert row["state"] == "learning"
    assert (folder / "ward.npz.corrupt-1").read_bytes() == b"PK not really"
    store.close()
    assert sources_in(folder) == ["ward"]


def test_a_second_holder_keeps_its_hands_off(store, tmp_path):
    other = BaselineStore(tmp_path, [kept(BaselineDetector(SCHEMA, QUICK))])
    other.open()
    assert "another wardwatch" in other.health()[0]["problem"]
    other.close()
    assert sources_in(store.folder) == []  # neither has written yet
    with locked(store.folder) as ours:
        assert not ours


def test_a_request_is_taken_up_saved_and_removed(store):
    done = []
    asker = threading.Thread(
        target=lambda: done.append(ask(store.folder, Request(action="freeze")))
    )
    asker.start()
    while asker.is_alive():
        store.tick()
    asker.join()
    assert done == [True]
    (row,) = store.health()
    assert row["state"] == "frozen"
    detector = BaselineDetector(SCHEMA, QUICK)
    baseline = file_of(store.folder, "ward")
    from agent.score.baseline_state import restore

    restore(baseline, detector)
    assert detector.frozen
    assert not list(store.folder.glob("request-*"))


def test_what_is_no_request_is_removed_and_changes_nothing(store):
    for n, text in enumerate(("", "{}", '{"action":"format"}', '{"action":"learn","device":"x"}')):
        path = store.folder / f"request-{n}.json"
        path.write_text(text)
        with pytest.raises(BaselineError):
            read_request(path)
    store.tick()
    assert not list(store.folder.glob("request-*"))
    assert store.health()[0]["state"] == "active"


@pytest.mark.parametrize(
    ("request_", "known", "state", "n_devices"),
    [
        (Request(action="freeze"), True, "frozen", 2),
        (Request(action="learn", device="10.0.0.7"), True, "active", 2),
        (Request(action="learn", device="10.0.0.200"), False, "active", 2),
        (Request(action="reset", device="10.0.0.7"), True, "active", 1),
        (Request(action="reset"), True, "learning", 0),
    ],
)
def test_what_each_request_does(request_, known, state, n_devices):
    detector = learned()
    assert apply(detector, request_) is known
    row = summary(detector)
    assert (row["state"], row["n_devices"]) == (state, n_devices)
    apply(detector, Request(action="learn"))
    assert not detector.frozen
