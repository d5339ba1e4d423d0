"""The security team's view on a real broker: a table at the end, a memory across runs, the reader's language."""

import json
import time
from pathlib import Path

import pytest

from agent.alert.finding import encode, to_bytes
from agent.cli import main
from agent.uplink.mqtt import Broker, Connection, Outgoing
from tests.support.alerts import ALERT, CONTEXT
from tests.support.brokers import Mosquitto, running
from tests.support.schemas import ROOT, check_event

TOPIC = "wardwatch/v1/st-luke/icu-2/gw-07/alert/critical/ip/tcp_syn_flood"


@pytest.fixture
def alerts(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Run `wardwatch alerts`; its exit status, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(["alerts", *(str(argument) for argument in arguments)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return int(caught.value.code or 0), out, err

    return run


def publish(port: int, *sequences: int) -> None:
    """As a gateway does: events of those numbers."""
    gateway = Connection(Broker(host="127.0.0.1", port=port, client_id="g", tls=False))
    gateway.open()
    for n in sequences:
        payload = to_bytes(encode(ALERT, context=CONTEXT, sequence=n))
        gateway.publish(Outgoing(topic=TOPIC, payload=payload))
    until_s = time.monotonic() + 10
    n_done = 0
    while n_done < len(sequences) and time.monotonic() < until_s:
        gateway.turn(0.02)
        n_done += len(gateway.acknowledged())
    gateway.close()


def test_a_gap_across_a_restart_is_seen_and_a_table_closes_the_view(alerts, tmp_path: Path):
    state = tmp_path / "state"
    with running(Mosquitto(tmp_path / "broker")) as mosquitto:
        view = ("--broker", f"mqtt://127.0.0.1:{mosquitto.port}", "--state", state)
        assert alerts(*view, "--for", "0.5")[0] == 0
        publish(mosquitto.port, 1, 2)
        status, out, err = alerts(*view, "--count", "2", "--summary")
        assert (status, "missing" in err) == (0, False)
        table = out[out.index("Findings") :]
        assert "last (UTC)" in table
        assert table.count("tcp_syn_flood") == 1
        for cell in ("critical", "PUMP-07", "9,412", "open", "st-luke/icu-2/gw-07"):
            assert cell in table
        publish(mosquitto.port, 5)
        status, out, err = alerts(*view, "--count", "1", "--json", "--summary", "--language", "fr")
        assert status == 0
        (event,) = [json.loads(line) for line in out.splitlines()]
        assert event["metadata"]["sequence"] == 5
        assert "st-luke/icu-2/gw-07: gap: 2 event(s) missing (3 to 4)" in err
        assert "Alertes" in err
        assert "critique" in err
        publish(mosquitto.port, 5, 6)  # the first one again
        status, out, err = alerts(*view, "--count", "1", "--language", "fr")
        assert "Inondation TCP SYN" in out
        assert out.count("tcp_syn_flood") == 1
        assert "missing" not in err


@pytest.mark.parametrize("content", ["", "not json", "[]", '{"schema": "x"}'])
def test_a_file_that_is_no_state_is_named_and_left_alone(alerts, tmp_path: Path, content: str):
    state = tmp_path / "notes.txt"
    state.write_text(content)
    status, out, err = alerts("--broker", "mqtt://127.0.0.1:1", "--state", state)
    assert (status, out) == (1, "")
    assert "name another file" in err
    assert err.count("\n") == 1
    assert state.read_text() == content


def test_a_state_that_cannot_be_written_is_said_at_the_start(alerts, tmp_path: Path):
    status, _, err = alerts("--broker", "mqtt://127.0.0.1:1", "--state", tmp_path / "no" / "x")
    assert status == 1
    assert "cannot be written" in err


def test_a_replay_says_its_findings_in_the_language_that_is_asked_for(
    capsys: pytest.CaptureFixture[str],
):
    said: dict[str, list[dict]] = {}
    for code in ("en", "fr"):
        with pytest.raises(SystemExit):
            main(["replay", "--json", "--language", code, str(ROOT / "demo" / "ward.pcap.gz")])
        lines = capsys.readouterr().out.splitlines()
        said[code] = [check_event(json.loads(line)) for line in lines]
    facts = {
        c: [f for e in rows for f in e["unmapped"]["wardwatch"]["facts"]]
        for c, rows in said.items()
    }
    assert len(facts["en"]) == len(facts["fr"]) > len(said["en"])
    for english, french in zip(facts["en"], facts["fr"], strict=True):
        assert english.pop("words") != french.pop("words")
        assert english == french
    assert {fact["normal_of"] for fact in facts["en"]} == {"device", "training"}
    assert {fact["about"] for fact in facts["en"]} == {"attacker", "victim"}
