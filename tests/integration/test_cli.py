"""The command line as its users meet it: what is on stdout, what is on stderr, the exit status."""

import gzip
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.brokers import Mosquitto, Subscriber, free_port, running
from tests.support.bundles import signed_bundle
from tests.support.pcap_writer import pcap
from tests.support.schemas import check_event

ROOT = Path(__file__).resolve().parents[2]


def one_line(err: str) -> str:
    """The only line on stderr."""
    assert err.count("\n") == 1, err
    assert err.startswith("wardwatch: ")
    return err


def test_help_teaches_by_examples(wardwatch):
    for command in ([], ["replay"], ["run"], ["alerts"]):
        status, out, _ = wardwatch(*command, "--help")
        assert status == 0
        assert out.count("wardwatch ") >= 3
    assert wardwatch("--version")[:2] == (0, "wardwatch, version 0.1.0\n")


@pytest.mark.parametrize(
    "arguments", [["repaly"], ["replay"], ["replay", "x", "--fail-on", "bad"], ["run"]]
)
def test_usage_errors_exit_with_2(wardwatch, arguments: list[str]):
    status, out, err = wardwatch(*arguments)
    assert status == 2
    assert out == ""
    assert err


def test_replay_json_is_one_valid_event_a_line_and_nothing_else(wardwatch, demo_capture: Path):
    status, out, err = wardwatch("replay", "--json", "--no-model", "--close", demo_capture)
    assert status == 0
    events = [check_event(json.loads(line)) for line in out.splitlines()]
    assert [event["metadata"]["sequence"] for event in events] == list(range(1, len(events) + 1))
    kinds = {event["finding_info"]["analytic"]["uid"] for event in events}
    assert {"port_scan", "tcp_syn_flood", "arp_spoofing"} <= kinds
    created = [e["finding_info"]["uid"] for e in events if e["activity_id"] == 1]
    closed = [e["finding_info"]["uid"] for e in events if e["activity_id"] == 3]
    assert sorted(created) == sorted(closed)
    assert "33,168 frames" in err
    assert '"ip":' not in out
    assert wardwatch("replay", "--json", "--no-model", "--close", demo_capture)[1] == out


def test_replay_in_words_names_hosts_and_says_what_to_do(wardwatch, demo_capture: Path):
    status, out, _ = wardwatch("replay", "--no-model", demo_capture)
    assert status == 0
    assert "Port scan" in out
    assert "10.243.209.141" in out
    assert "do first:" in out
    assert "Findings in ward.pcap.gz" in out


def test_raw_addresses_are_given_only_where_asked_for(wardwatch, demo_capture: Path):
    _, out, _ = wardwatch("replay", "--json", "--no-model", "--raw-addresses", demo_capture)
    assert '"ip":"10.243.209.141"' in out


def test_fail_on(wardwatch, demo_capture: Path):
    assert wardwatch("replay", "--no-model", demo_capture, "--fail-on", "high")[0] == 3
    assert wardwatch("replay", "--no-model", demo_capture, "--fail-on", "critical")[0] == 0


BENIGN = bytes.fromhex("0200000000010200000000028899") + bytes(46)


def test_files_that_are_wrong_are_named_the_others_are_read(wardwatch, tmp_path: Path):
    good = tmp_path / "good.pcap"
    good.write_bytes(pcap([(10**18 + i * 10**9, BENIGN) for i in range(3)]))
    empty = tmp_path / "empty.pcap"
    empty.touch()
    foreign = tmp_path / "foreign.pcap"
    foreign.write_text("not a capture file at all\n" * 10)
    radio = tmp_path / "radio.pcap"
    radio.write_bytes(pcap([(10**18, BENIGN)], link_type=127))
    files = [tmp_path / "none.pcap", empty, foreign, radio, tmp_path, good]
    status, out, err = wardwatch("replay", "--json", "--no-model", *files)
    assert status == 1
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 6
    for file, line in zip(files, lines, strict=True):
        assert file.name in line
    assert "good.pcap: 3 frames" in lines[-1]


def test_a_cut_file_is_read_as_far_as_it_is_whole(wardwatch, tmp_path: Path, demo_capture: Path):
    whole = gzip.decompress(demo_capture.read_bytes())
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(whole[: len(whole) // 2])
    status, out, err = wardwatch("replay", "--json", "--no-model", cut)
    assert status == 0
    assert "what is whole was read" in err
    assert out.count("\n") >= 1
    cut.write_bytes(whole[:30])  # nothing of it is whole
    status, out, err = wardwatch("replay", "--json", "--no-model", cut)
    assert status == 1
    assert "no frame" in one_line(err)


def test_bundles_that_are_not_there_or_not_whole(wardwatch, tmp_path: Path, demo_capture: Path):
    status, _, err = wardwatch("replay", demo_capture, "--bundle", tmp_path / "none")
    assert status == 1
    assert "no such folder" in one_line(err)
    status, _, err = wardwatch("bundle", "verify", tmp_path)
    assert status == 1
    assert "not a whole bundle" in one_line(err)
    status, _, err = wardwatch("bundle", "show", tmp_path / "none")
    assert status == 1
    assert "no such folder" in one_line(err)


SITE = '[site]\nname = "s"\nward = "w"\ngateway = "g"\n'


def test_trusting_a_key_changes_nothing_else_in_the_settings(wardwatch, tmp_path: Path):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    from agent.config import load_config

    keys = []
    for name in ("a.pub", "b.pub"):
        public = Ed25519PrivateKey.generate().public_key()
        keys.append(tmp_path / name)
        keys[-1].write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    settings = tmp_path / "agent.toml"
    for text in (
        SITE,
        SITE + "[bundle]  # the model\n[privacy]\n",
        SITE + "[bundle]\ntrust = [ # keys\n]\n",
    ):
        settings.write_text(text)
        for key in (*keys, keys[0]):
            assert wardwatch("bundle", "trust", key, "--config", settings)[0] == 0
        assert set(load_config(settings).bundle.trust) == set(keys)
        for word in text.split():
            assert word in settings.read_text()
    status, _, err = wardwatch("bundle", "trust", settings, "--config", settings)
    assert status == 1
    assert "not an Ed25519 public key" in one_line(err)


def test_wrong_settings_are_one_line_with_the_dotted_path(wardwatch, tmp_path: Path):
    settings = tmp_path / "agent.toml"
    status, _, err = wardwatch("run", "--config", settings)
    assert status == 1
    assert "no such file" in one_line(err)
    settings.write_text(
        SITE + '[[source]]\nname = "a"\nkind = "ip"\ninterface = "lo"\nplcement = "tap"\n'
    )
    status, _, err = wardwatch("run", "--config", settings)
    assert status == 1
    assert 'source[0].plcement: unknown key; did you mean "placement"?' in one_line(err)
    settings.write_text(SITE)
    status, _, err = wardwatch("run", "--config", settings)
    assert "nothing to listen on" in one_line(err)


SUPPRESS = (
    '[[suppress]]\nname = "x"\ndetection = "port_scan"\nwhere = "10.0.0.0/8"\n'
    'expires = 2027-01-01T00:00:00Z\nreason = "r"\nauthor = "a"\n'
)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (SUPPRESS.replace("scan", "scna"), "suppress[0].detection: no such detection: port_scna"),
        (SUPPRESS.replace("T00:00:00Z", ""), "suppress[0].expires: expected a time with its zone"),
        ('[bundle]\npath = "none"\n', "bundle.path: "),
        ('[bundle]\ntrust = ["none.pem"]\n', "bundle.trust[0]: "),
        ("[site.more]\nx = 1\n", "site.more: unknown key"),
    ],
)  # fmt: skip
def test_check_reads_what_the_settings_name(wardwatch, tmp_path: Path, settings: str, said: str):
    file = tmp_path / "agent.toml"
    file.write_text(SITE + '[[source]]\nname = "a"\nkind = "ip"\ninterface = "lo"\n' + settings)
    status, out, err = wardwatch("run", "--config", file, "--check")
    assert (status, out) == (1, "")
    assert one_line(err).startswith(f"wardwatch: {said}")


@pytest.mark.root
def test_a_state_folder_of_another_user_is_said_and_watching_goes_on(tmp_path: Path):
    """What happens after a first start as root: no key and no spool on disk, but a warning of each."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    os.chown(state, 65534, 65534)
    settings = tmp_path / "agent.toml"
    settings.write_text(
        f'[site]\nname = "s"\nward = "w"\ngateway = "g"\nstate_dir = "{state}"\n'
        '[[source]]\nname = "lo"\nkind = "ip"\ninterface = "none0"\non_start_error = "fail"\n'
    )
    done = subprocess.run(
        ["setpriv", "--bounding-set=-dac_override,-dac_read_search",
         sys.executable, "-m", "agent.cli", "run", "--no-model", "--config", str(settings)],
        capture_output=True, text=True, cwd=ROOT, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    said = done.stderr.splitlines()
    assert said[0].startswith(f"wardwatch: WARNING: site.state_dir: {state}: ")
    assert any("spool" in line and "memory" in line for line in said), said
    assert said[-1].startswith("wardwatch: none0: no such interface")
    assert "Traceback" not in done.stderr


def test_check_says_that_the_settings_are_good(wardwatch, tmp_path: Path):
    settings = tmp_path / "agent.toml"
    settings.write_text(SITE + '[[source]]\nname = "a"\nkind = "ip"\ninterface = "lo"\n')
    status, out, _ = wardwatch("run", "--config", settings, "--check", "--no-model")
    assert status == 0
    assert "good: 1 source(s), no broker" in out


@pytest.mark.root
def test_an_interface_that_is_not_there_ends_the_run_where_the_settings_say_so(
    wardwatch, tmp_path: Path
):
    settings = tmp_path / "agent.toml"
    settings.write_text(
        SITE + f'state_dir = "{tmp_path}/state"\n'
        '[[source]]\nname = "a"\nkind = "ip"\ninterface = "nosuch0"\non_start_error = "fail"\n'
    )
    status, _, err = wardwatch("run", "--config", settings, "--no-model")
    assert status == 1
    assert "nosuch0" in err.splitlines()[-1]


@pytest.mark.root
def test_without_the_capability_one_line_says_how_to_give_it(tmp_path: Path):
    settings = tmp_path / "agent.toml"
    settings.write_text(
        SITE
        + f'state_dir = "{tmp_path}/state"\n[[source]]\nname = "a"\nkind = "ip"\ninterface = "lo"\n'
    )
    command = [
        "setpriv",
        "--bounding-set=-net_raw",
        "--inh-caps=-net_raw",
        sys.executable,
        "-m",
        "agent.cli",
    ]
    done = subprocess.run(
        [*command, "run", "--config", settings, "--no-model"],
        capture_output=True, text=True, cwd=ROOT, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    assert "setcap" in last or "AmbientCapabilities" in last
    assert "Traceback" not in done.stderr


def test_replay_publishes_to_a_broker(wardwatch, tmp_path: Path, demo_capture: Path):
    with running(Mosquitto(tmp_path / "broker")) as mosquitto:
        from agent.uplink.mqtt import Broker

        subscriber = Subscriber(
            Broker(host="127.0.0.1", port=mosquitto.port, client_id="s", tls=False)
        )
        url = f"mqtt://127.0.0.1:{mosquitto.port}"
        status, out, _ = wardwatch("replay", "--json", "--no-model", demo_capture, "--broker", url)
        assert status == 0
        lines = out.splitlines()
        subscriber.wait_for(len(lines))
        subscriber.close()
    received = [check_event(json.loads(payload)) for _, payload in subscriber.messages]
    assert all(event["metadata"].pop("transmit_time") > 0 for event in received)
    by_sequence = sorted(received, key=lambda event: event["metadata"]["sequence"])
    assert by_sequence == [json.loads(line) for line in lines]
    assert all("/alert/" in topic for topic, _ in subscriber.messages)
    assert all("10.243" not in topic for topic, _ in subscriber.messages)


def test_a_broker_that_is_not_there_is_75_and_nothing_is_lost(wardwatch, demo_capture: Path):
    url = f"mqtt://127.0.0.1:{free_port()}"
    status, out, err = wardwatch("replay", "--json", "--no-model", demo_capture, "--broker", url)
    assert status == 75
    assert out.count("\n") >= 3
    assert "Connection refused" in err
    status, _, err = wardwatch("alerts", "--broker", url)
    assert status == 75
    assert "Connection refused" in one_line(err)


@pytest.mark.parametrize(
    "wrong",
    [
        ("--topic", "a#b"), ("--topic", "#/a"), ("--topic", ""), ("--topic", "a/" * 40_000),
        ("--client-id", ""), ("--client-id", "x" * 70_000), ("--for", "-1"), ("--count", "0"),
    ],
    ids=lambda pair: f"{pair[0]} {pair[1][:10]}",
)  # fmt: skip
def test_what_no_broker_takes_is_a_usage_error(wardwatch, wrong: tuple[str, str]):
    status, out, err = wardwatch("alerts", "--broker", f"mqtt://127.0.0.1:{free_port()}", *wrong)
    assert (status, out) == (2, "")
    assert wrong[0] in err
    assert len(err) < 500


def test_an_empty_broker_is_no_broker_left_out(wardwatch, demo_capture: Path):
    """A script's unset variable must not look like success."""
    status, _, err = wardwatch("replay", "--no-model", demo_capture, "--broker", "")
    assert status == 2
    assert "--broker" in err


def test_broker_options_that_do_not_fit_are_usage_errors(wardwatch, tmp_path: Path):
    status, _, err = wardwatch("alerts", "--broker", "http://broker")
    assert status == 2
    assert "--broker" in err
    status, _, err = wardwatch("alerts", "--broker", "mqtts://b", "--ca", tmp_path / "none.pem")
    assert status == 2
    assert "--ca" in err
    readable = tmp_path / "user"
    readable.write_text("a\nb\n")
    readable.chmod(0o644)
    status, _, err = wardwatch("alerts", "--broker", "mqtt://b", "--user-file", readable)
    assert status == 2
    assert "others can read it" in err


def test_alerts_shows_what_came_while_it_was_away_and_reports_gaps(
    wardwatch, tmp_path: Path, demo_capture: Path
):
    from agent.uplink.mqtt import Broker, Connection, Outgoing

    events = [
        json.loads(line)
        for line in wardwatch("replay", "--json", "--no-model", demo_capture)[1].splitlines()
    ]
    with running(Mosquitto(tmp_path / "broker")) as mosquitto:
        url = f"mqtt://127.0.0.1:{mosquitto.port}"
        assert wardwatch("alerts", "--broker", url, "--for", "0.5")[0] == 0  # the session begins
        gateway = Connection(
            Broker(host="127.0.0.1", port=mosquitto.port, client_id="g", tls=False)
        )
        gateway.open()
        topic = "wardwatch/v1/s/w/g/alert/medium/ip/port_scan"
        sent = [json.dumps(e).encode() for e in (events[0], events[1], events[1], events[4])]
        for payload in (*sent, b"\x1b[2Jgarbage", b'{"a": 1}'):
            gateway.publish(Outgoing(topic=topic, payload=payload))
        until_s = time.monotonic() + 10
        while len(gateway.acknowledged()) < 6 and time.monotonic() < until_s:
            gateway.turn(0.05)
            time.sleep(0.05)
        gateway.close()
        status, out, err = wardwatch("alerts", "--broker", url, "--json", "--for", "2")
    assert status == 0
    assert [json.loads(line)["metadata"]["sequence"] for line in out.splitlines()] == [1, 2, 5]
    assert "s/w/g: gap: 2 event(s) missing (3 to 4)" in err
    assert err.count("left out") == 2
    assert "\x1b" not in err


def test_sources_lists_interfaces(wardwatch):
    status, out, _ = wardwatch("sources")
    assert status == 0
    assert "lo" in out.split()
    rows = [json.loads(line) for line in wardwatch("sources", "--json")[1].splitlines()]
    assert {"interface", "link", "state", "bridge", "remark", "permitted"} == set(rows[0])


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_reader_that_goes_away_is_no_traceback(demo_capture: Path, form: tuple[str, ...]):
    process = subprocess.Popen(
        [sys.executable, "-m", "agent.cli", "replay", "--no-model", str(demo_capture), *form],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout
    assert process.stderr
    assert process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 141  # as the shell says of SIGPIPE
    assert "Traceback" not in said
    assert "Exception" not in said


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_full_disk_under_the_output_is_one_line(demo_capture: Path, form: tuple[str, ...]):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "agent.cli", "replay", "--no-model", str(demo_capture), *form],
            stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False, timeout=60,
        )  # fmt: skip
    assert done.returncode == 1
    assert "no space left" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


@pytest.mark.root
def test_a_file_without_permission_is_named_and_the_others_are_read(
    tmp_path: Path, demo_capture: Path
):
    """As one who may not read what belongs to another user."""
    mine = tmp_path / "mine.pcap"
    mine.write_bytes(gzip.decompress(demo_capture.read_bytes())[:100_000])
    other = tmp_path / "other.pcap"
    other.write_bytes(mine.read_bytes())
    other.chmod(0o600)
    os.chown(other, 65534, 65534)
    done = subprocess.run(
        ["setpriv", "--bounding-set=-dac_override,-dac_read_search",
         sys.executable, "-m", "agent.cli", "replay", "--no-model", str(other), str(mine)],
        capture_output=True, text=True, cwd=ROOT, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"wardwatch: {other}: no permission to read it\n" in done.stderr
    assert "mine.pcap: 668 frames" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_model_and_no_model_are_not_asked_for_together(
    wardwatch, tmp_path: Path, demo_capture: Path
):
    status, _, err = wardwatch("replay", "--no-model", "--bundle", tmp_path, demo_capture)
    assert status == 2
    assert "--bundle" in err


def test_certificates_that_are_none_are_said_before_anything_is_read(
    wardwatch, tmp_path: Path, demo_capture: Path
):
    ca = tmp_path / "ca.pem"
    ca.write_text("no certificate")
    status, out, err = wardwatch("replay", demo_capture, "--broker", "mqtts://b", "--ca", ca)
    assert (status, out) == (2, "")
    assert "--ca" in err
    assert "cannot read the certificates" in err
    settings = tmp_path / "agent.toml"
    settings.write_text(
        f'[site]\nname = "s"\nward = "w"\ngateway = "g"\nstate_dir = "{tmp_path}"\n'
        '[[source]]\nname = "lo"\nkind = "ip"\ninterface = "lo"\n'
        '[uplink]\nurl = "mqtts://b"\nca = "ca.pem"\n'
    )
    status, _, err = wardwatch("run", "--config", settings, "--check")
    assert status == 1
    assert one_line(err).startswith("wardwatch: uplink.ca: cannot read")


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small real bundle, and the public key that its signature verifies with."""
    return signed_bundle(tmp_path_factory.mktemp("signed"))


def test_a_bundle_of_ones_own_needs_a_trusted_key(wardwatch, signed, demo_capture: Path):
    folder, key = signed
    status, _, err = wardwatch("replay", demo_capture, "--bundle", folder)
    assert status == 1
    assert "trust" in one_line(err)
    status, out, _ = wardwatch("replay", "--json", demo_capture, "--bundle", folder, "--trust", key)
    assert status == 0
    events = [check_event(json.loads(line)) for line in out.splitlines()]
    assert {event["unmapped"]["wardwatch"]["bundle"] for event in events} == {folder.name}
    status, out, _ = wardwatch("bundle", "verify", folder, "--trust", key)
    assert status == 0
    assert "golden rows replay exactly" in out
    status, out, _ = wardwatch("bundle", "show", folder, "--trust", key)
    assert status == 0
    assert "port_scan" in out
    assert "digests     ok" in out
    assert (
        json.loads(wardwatch("bundle", "show", folder, "--trust", key, "--json")[1])["id"]
        == folder.name
    )


def test_a_bundle_that_was_changed_is_refused(wardwatch, signed, tmp_path: Path):
    folder = tmp_path / signed[0].name
    shutil.copytree(signed[0], folder)
    trees = folder / "trees.npz"
    whole = trees.read_bytes()
    trees.write_bytes(whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
    status, _, err = wardwatch("bundle", "verify", folder, "--trust", signed[1])
    assert status == 1
    assert "trees.npz" in one_line(err)
    status, out, err = wardwatch("bundle", "show", folder, "--trust", signed[1])
    assert status == 1
    assert "digests     not those of the manifest: trees.npz" in out
    assert "trees.npz" in one_line(err)
