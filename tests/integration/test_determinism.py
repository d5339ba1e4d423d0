"""The same capture gives the same findings: run by run, and however its frames come in batches."""

from pathlib import Path

import pytest

from agent.alert.finding import encode, to_bytes
from agent.assembly import Site, make_message, make_site, make_watch
from agent.capture.capture_file import open_capture
from agent.records import Alert

SIZES = (100, 1000, 16_384)
PUBLIC = ("scans/ps-udp.pcap", "mqtt/malformed-train.pcap")


@pytest.fixture(scope="module", params=["rules", "rules and model"])
def site(request: pytest.FixtureRequest) -> Site:
    return make_site(None, no_model=request.param == "rules")


def findings(site: Site, path: Path, batch_frames: int) -> list[Alert]:
    """Every event of one run, those at the flush among them."""
    watch = make_watch(site, path.name)
    out: list[Alert] = []
    with open_capture(path, batch_frames=batch_frames) as capture:
        for batch in capture:
            assert len(batch) <= batch_frames
            out += watch.pipeline.push(batch)
    return out + watch.pipeline.flush()


def events(site: Site, alerts: list[Alert]) -> list[bytes]:
    """As they would be published, byte for byte."""
    return [
        to_bytes(encode(alert, context=site.context, sequence=i)) for i, alert in enumerate(alerts)
    ]


def same_however_cut(site: Site, path: Path) -> None:
    found = {size: events(site, findings(site, path, size)) for size in SIZES}
    assert found[SIZES[0]]
    for size in SIZES[1:]:
        assert found[size] == found[SIZES[0]], f"batches of {size}"


def test_the_demo_is_found_the_same_however_it_is_cut(site: Site, demo_capture: Path):
    same_however_cut(site, demo_capture)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_captures_are_found_the_same_however_they_are_cut(
    site: Site, captures: Path, name: str
):
    same_however_cut(site, captures / name)


def test_a_second_replay_gives_the_same_events(site: Site, demo_capture: Path):
    runs = []
    for _ in range(2):
        alerts = findings(site, demo_capture, SIZES[-1])
        runs.append(
            [make_message(a, i, context=site.context).payload for i, a in enumerate(alerts)]
        )
    assert runs[0] == runs[1]
