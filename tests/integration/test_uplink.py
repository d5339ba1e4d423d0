"""The uplink against a real mosquitto: TLS, credentials, refusals, outages. Nothing lost, order kept."""

import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.errors import UplinkError, UplinkReason
from agent.uplink.message import Message
from agent.uplink.mqtt import Broker, Connection, Outgoing
from agent.uplink.own_flows import OwnFlows
from agent.uplink.publisher import Publisher, Voice
from agent.uplink.spool import Spool
from tests.support.brokers import Mosquitto, Subscriber, free_port, running
from tests.support.certs import Authority


def address(mosquitto: Mosquitto, client_id: str = "gw-07", **more) -> Broker:
    settings = {"host": mosquitto.host, "port": mosquitto.port, "tls": bool(mosquitto.cert), **more}
    return Broker(client_id=client_id, **settings)


def finding(
    sequence: int, *, key: str = "", topic: str = "alert/low/ip/port_scan", severity: int = 3
):
    return Message(
        topic=topic,
        payload=json.dumps({"sequence": sequence, "key": key}).encode(),
        key=key or str(sequence),
        severity=severity,
        schema="finding-1",
        expiry_s=3600,
        created_ns=time.time_ns(),
    )


def voice() -> Voice:
    def status(**fields):
        return json.dumps(fields).encode()

    return Voice(
        status_topic="status",
        open_topic="open",
        health_topic="health",
        birth=lambda seq: status(online=True, connect_seq=seq),
        lost=lambda seq: status(online=False, connect_seq=seq, reason="lost"),
        shutdown=lambda seq: status(online=False, connect_seq=seq, reason="shutdown"),
        health=lambda: b"{}",
        status_schema="status-1",
        open_schema="open-1",
        health_schema="health-1",
    )


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with running(Mosquitto(tmp_path / "broker")) as broker:
        yield broker


class Agent:
    """A publisher and its spool in their threads."""

    def __init__(self, broker: Broker, path: Path, **parts) -> None:
        self.spool = Spool(path)
        self.reports: list[UplinkError | None] = []
        self.flows = OwnFlows()
        self.publisher = Publisher(
            broker,
            self.spool,
            flows=self.flows,
            rng=random.Random(1),
            report=self.reports.append,
            **parts,
        )
        self.stop = threading.Event()
        self.stop_spool = threading.Event()
        self._threads = [
            threading.Thread(target=self.publisher.run, args=(self.stop,)),
            threading.Thread(target=self.spool.run, args=(self.stop_spool, self.reports.append)),
        ]
        for thread in self._threads:
            thread.start()

    def wait_until(self, true, timeout_s: float = 15.0) -> None:
        until_s = time.monotonic() + timeout_s
        while not true():
            assert time.monotonic() < until_s, (
                self.publisher.state(),
                self.spool.state(),
                self.reports,
            )
            time.sleep(0.01)

    def end(self) -> None:
        self.stop.set()
        self._threads[0].join()
        self.stop_spool.set()
        self._threads[1].join()
        self.spool.close()


@contextmanager
def agent(broker: Broker, path: Path, **parts) -> Iterator[Agent]:
    running_agent = Agent(broker, path, **parts)
    try:
        yield running_agent
    finally:
        running_agent.end()


def test_findings_arrive_in_order_and_leave_the_spool(mosquitto: Mosquitto, tmp_path: Path):
    subscriber = Subscriber(address(mosquitto, "security"))
    with agent(address(mosquitto), tmp_path / "spool.db") as gateway:
        for _ in range(200):
            gateway.spool.put(finding)
        subscriber.wait_for(200, topic="alert/")
        gateway.wait_until(lambda: gateway.spool.depth == 0)
    subscriber.close()
    assert [event["sequence"] for event in subscriber.json("alert/")] == list(range(1, 201))


def test_status_birth_open_and_a_clean_goodbye(mosquitto: Mosquitto, tmp_path: Path):
    subscriber = Subscriber(address(mosquitto, "security"))
    with agent(address(mosquitto), tmp_path / "spool.db", voice=voice()) as gateway:
        gateway.publisher.set_open(b'{"open":[1]}')
        subscriber.wait_for(1, topic="open")
        late = Subscriber(address(mosquitto, "late"))
        assert late.json("status") == [{"online": True, "connect_seq": 1}]  # retained
        assert late.json("open") == [{"open": [1]}]
        late.close()
    subscriber.wait_for(2, topic="status")
    subscriber.close()
    assert subscriber.json("status") == [
        {"online": True, "connect_seq": 1},
        {"online": False, "connect_seq": 1, "reason": "shutdown"},
    ]


def test_the_last_will_names_the_connection_that_was_lost(mosquitto: Mosquitto, tmp_path: Path):
    subscriber = Subscriber(address(mosquitto, "security"), "status")
    spool = Spool(tmp_path / "spool.db")
    seq = spool.next_connect_seq()
    will = Outgoing(topic="status", payload=voice().lost(seq), retain=True)
    connection = Connection(address(mosquitto), will=will)
    connection.open()
    connection.abort()
    subscriber.wait_for(1)
    assert subscriber.json("status") == [{"online": False, "connect_seq": 1, "reason": "lost"}]
    assert spool.next_connect_seq() == 2
    spool.close()
    subscriber.close()


def test_the_broker_is_stopped_and_started_later_nothing_lost_order_kept(
    mosquitto: Mosquitto, tmp_path: Path
):
    mosquitto.stop()
    with agent(address(mosquitto), tmp_path / "spool.db", voice=voice()) as gateway:
        for i in range(60):
            gateway.spool.put(lambda sequence, i=i: finding(sequence, key=f"k{i % 7}"))
        gateway.wait_until(lambda: gateway.publisher.state().problem is not None)
        assert gateway.publisher.state().problem_reason == "unreachable"
        assert "Connection refused" in str(gateway.reports[0])
        mosquitto.start()
        subscriber = Subscriber(address(mosquitto, "security"), "alert/#")
        subscriber.wait_for(60)
        mosquitto.stop()  # while more is put
        for i in range(40):
            gateway.spool.put(lambda sequence, i=i: finding(sequence, key=f"k{i % 7}"))
        mosquitto.start()
        again = Subscriber(address(mosquitto, "security"), "alert/#")
        again.wait_for(40)
        gateway.wait_until(lambda: gateway.spool.depth == 0)
        again.read(0.2)
    again.close()
    subscriber.close()
    events = subscriber.json("alert/") + again.json("alert/")
    assert {event["sequence"] for event in events} == set(range(1, 101))
    for key in {event["key"] for event in events}:
        first_seen = list(dict.fromkeys(e["sequence"] for e in events if e["key"] == key))
        assert first_seen == sorted(first_seen)


def test_what_a_stopped_agent_left_in_the_spool_is_sent_by_the_next(
    mosquitto: Mosquitto, tmp_path: Path
):
    mosquitto.stop()
    with agent(address(mosquitto), tmp_path / "spool.db") as gateway:
        gateway.spool.put(finding)
    mosquitto.start()
    subscriber = Subscriber(address(mosquitto, "security"))
    with agent(address(mosquitto), tmp_path / "spool.db") as gateway:
        gateway.spool.put(finding)
        subscriber.wait_for(2)
    subscriber.close()
    assert [event["sequence"] for event in subscriber.json("alert/")] == [1, 2]


ACL = """
user gw-07
topic write alert/high/#
topic write status
user security
topic read #
"""


def test_a_refused_topic_stays_in_the_spool_and_is_named(tmp_path: Path):
    """MQTT 5: PUBACK 0x87. Other topics go on; when the ACL is mended, nothing is missing."""
    users = {"gw-07": "secret", "security": "s"}
    mosquitto = Mosquitto(tmp_path / "broker", users=users, acl=ACL)
    with running(mosquitto):
        me = address(mosquitto, user="gw-07", password="secret")
        subscriber = Subscriber(address(mosquitto, "security", user="security", password="s"))
        with agent(me, tmp_path / "spool.db") as gateway:
            gateway.spool.put(lambda s: finding(s, key="a", topic="alert/low/ip/port_scan"))
            gateway.spool.put(lambda s: finding(s, key="b", topic="alert/high/ip/udp_flood"))
            gateway.spool.put(lambda s: finding(s, key="a", topic="alert/high/ip/port_scan"))
            subscriber.wait_for(1)
            gateway.wait_until(lambda: gateway.publisher.state().n_refused >= 1)
            state = gateway.publisher.state()
            assert state.refused_topics == ("alert/low/ip/port_scan",)
            assert state.problem_reason == "acl"
            gateway.wait_until(lambda: gateway.spool.depth == 2)
            subscriber.read(0.3)
            assert [event["sequence"] for event in subscriber.json("alert/")] == [2]
            assert gateway.reports[0] is None  # connected
            report = gateway.reports[1]
            assert report is not None
            assert "alert/low/ip/port_scan" in str(report)
            assert "(0x87)" in str(report)
            mosquitto.stop()
            mosquitto.acl = ACL.replace("alert/high/#", "alert/#")
            mosquitto.start()
            subscriber.close()
            subscriber = Subscriber(address(mosquitto, "security", user="security", password="s"))
            gateway.wait_until(lambda: gateway.spool.depth == 0)
            subscriber.wait_for(2)
        subscriber.close()
        assert [event["sequence"] for event in subscriber.json("alert/")] == [1, 3]


def refusal(broker: Broker) -> UplinkError:
    with pytest.raises(UplinkError) as caught:
        Connection(broker).open()
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 75
    return caught.value


def test_bad_credentials(tmp_path: Path):
    with running(Mosquitto(tmp_path / "broker", users={"gw-07": "secret"})) as mosquitto:
        error = refusal(address(mosquitto, user="gw-07", password="wrong"))
        assert error.reason is UplinkReason.CREDENTIALS
        assert "user_file" in str(error)
        assert refusal(address(mosquitto)).reason is UplinkReason.CREDENTIALS
        good = Connection(address(mosquitto, user="gw-07", password="secret"))
        good.open()
        good.close()


def test_nobody_listens_and_no_such_name():
    error = refusal(Broker(host="127.0.0.1", port=free_port(), client_id="x", tls=False))
    assert error.reason is UplinkReason.UNREACHABLE
    error = refusal(Broker(host="broker.invalid", port=1883, client_id="x", tls=False))
    assert error.reason is UplinkReason.DNS
    assert "broker.invalid" in str(error)


def test_a_port_that_is_not_mqtt_does_not_hang():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def hang_up() -> None:
            connection, _ = server.accept()
            connection.recv(1000)
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        error = refusal(Broker(host="127.0.0.1", port=port, client_id="x", tls=False))
        thread.join()
    assert error.reason is UplinkReason.PROTOCOL


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def tls_broker(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mosquitto]:
    cert, key = authority.issue("broker", hosts=("localhost", "127.0.0.1"))
    folder = tmp_path_factory.mktemp("tls") / "broker"
    mosquitto = Mosquitto(folder, ca=authority.ca, cert=cert, key=key, require_certificate=True)
    with running(mosquitto):
        yield mosquitto


def test_tls_with_a_client_certificate(tls_broker: Mosquitto, authority: Authority, tmp_path: Path):
    cert, key = authority.issue("gw-07")
    files = {"ca": authority.ca, "cert": cert, "key": key}
    subscriber = Subscriber(address(tls_broker, "security", **files))
    with agent(address(tls_broker, host="localhost", **files), tmp_path / "spool.db") as gateway:
        for _ in range(30):
            gateway.spool.put(finding)
        subscriber.wait_for(30)
    subscriber.close()
    assert [event["sequence"] for event in subscriber.json("alert/")] == list(range(1, 31))


def test_tls_without_the_client_certificate(tls_broker: Mosquitto, authority: Authority):
    error = refusal(address(tls_broker, ca=authority.ca))
    assert error.reason in {UplinkReason.TLS, UplinkReason.PROTOCOL}
    assert "client certificate" in str(error)


def test_tls_wrong_authority(tls_broker: Mosquitto, tmp_path: Path):
    other = Authority(tmp_path / "other", "Other CA")
    error = refusal(address(tls_broker, ca=other.ca))
    assert error.reason is UplinkReason.TLS
    assert "certificate is not good" in str(error)


def test_tls_wrong_name(authority: Authority, tmp_path: Path):
    cert, key = authority.issue("elsewhere", hosts=("elsewhere.example",))
    with running(Mosquitto(tmp_path / "b", ca=authority.ca, cert=cert, key=key)) as mosquitto:
        error = refusal(address(mosquitto, ca=authority.ca))
    assert error.reason is UplinkReason.TLS
    assert "not valid for" in str(error)


def test_tls_on_a_plain_port_and_plain_on_a_tls_port(
    mosquitto: Mosquitto, tls_broker: Mosquitto, authority: Authority
):
    error = refusal(address(mosquitto, tls=True, ca=authority.ca))
    assert error.reason in {UplinkReason.TLS, UplinkReason.UNREACHABLE}
    assert refusal(address(tls_broker, tls=False)).reason in {
        UplinkReason.PROTOCOL,
        UplinkReason.UNREACHABLE,
    }


def test_certificates_that_cannot_be_read(tls_broker: Mosquitto, tmp_path: Path):
    error = refusal(address(tls_broker, ca=tmp_path / "none.pem"))
    assert error.reason is UplinkReason.TLS
    assert "none.pem" in str(error)


def test_our_own_flow_is_told_exactly(mosquitto: Mosquitto):
    flows = OwnFlows()
    connection = Connection(address(mosquitto), flows)
    connection.open()
    ((local, local_port, remote, remote_port),) = flows.flows()
    assert remote_port == mosquitto.port
    assert local == remote  # 127.0.0.1 on both sides
    sockets = subprocess_ss(local_port)
    assert f"127.0.0.1:{local_port}" in sockets
    connection.close()
    assert len(flows.flows()) == 1  # its last frames may still be in a ring


def subprocess_ss(port: int) -> str:
    import subprocess

    command = ["ss", "-Htn", "state", "established", f"sport = :{port}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_send_all_empties_a_spool_once(mosquitto: Mosquitto):
    subscriber = Subscriber(address(mosquitto, "security"))
    spool = Spool(None)
    for _ in range(50):
        spool.put(finding)
    spool.commit()
    Publisher(address(mosquitto), spool).send_all(10.0)
    assert spool.depth == 0
    subscriber.wait_for(50)
    subscriber.close()
    spool.close()
    assert len(subscriber.json("alert/")) == 50
