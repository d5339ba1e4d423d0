"""One connection to an MQTT 5 broker. paho-mqtt and its errors stay in this file.

It never reconnects by itself (a lost connection is an error; who owns it opens a new one, so no state
of the old one lives on), never verifies less than the certificate's chain and name, and never speaks
another version than MQTT 5: in 3.1.1 a refused publish is silent.

In: a `Broker`. Out: acknowledgements `(mid, code)`, and messages where something was subscribed.
Raises: `UplinkError` with its reason and what to do. Remembers: one connection; its 5-tuple is told to
`OwnFlows` before the first SYN leaves, and again when it closed.
One thread at a time. Source: MQTT 5.0 (OASIS), 2.4 reason codes, 3.1.2 CONNECT, 3.3.2.3 PUBLISH.
"""

import errno
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from agent.errors import UplinkError, UplinkReason
from agent.uplink.own_flows import Flow, OwnFlows, endpoint_of
from agent.uplink.tls import tls_context

KEEP_ALIVE_S = 30
"""A silent death of the broker is seen after one and a half of these."""
CONNECT_TIMEOUT_S = 5.0
"""For each address, and for the TLS handshake, and for the CONNACK."""
REFUSED_FROM = 0x80
"""Reason codes at or above it are failures (MQTT 5.0, 2.4)."""
DEFAULT_RECEIVE_MAXIMUM = 65_535


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """Where the broker is and who we are there."""

    host: str
    port: int
    client_id: str
    tls: bool
    ca: Path | None = None
    """PEM; None: the system's authorities."""
    cert: Path | None = None
    key: Path | None = None
    user: str | None = None
    password: str | None = None

    @property
    def name(self) -> str:
        """For messages to people."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"broker {host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One PUBLISH."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    schema: str = ""
    """User property `schema`; empty: none."""
    expiry_s: int | None = None


class _Client(paho.Client):
    """paho's client on a socket that we open, so that its ports are known before the first packet."""

    open_socket: Callable[[str, int], socket.socket]

    def _create_socket(self) -> socket.socket:
        return self.open_socket(self._host, self._port)

    def shut(self) -> None:
        """Close the connection and the pair that wakes it, without a word."""
        self._sock_close()
        self._reset_sockets(sockpair_only=True)


class Connection:
    """One connection, from CONNECT to its end."""

    def __init__(
        self,
        broker: Broker,
        flows: OwnFlows | None = None,
        *,
        will: Outgoing | None = None,
        clean_start: bool = True,
        session_expiry_s: int = 0,
    ) -> None:
        self.broker = broker
        self.receive_maximum = DEFAULT_RECEIVE_MAXIMUM
        """How many unacknowledged publishes the broker takes."""
        self.session_present = False
        self.messages: deque[tuple[str, bytes]] = deque()
        """What came in for subscriptions, oldest first."""
        self._flows = flows
        self._flow: Flow | None = None
        self._clean_start = clean_start
        self._session_expiry_s = session_expiry_s
        self._acknowledged: deque[tuple[int, int]] = deque()
        self._connack: ReasonCode | None = None
        self._farewell: ReasonCode | None = None
        self._log_line = ""
        self._client = self._made(will)

    def open(self) -> None:
        """Connect and wait for the CONNACK; `UplinkError` says what is wrong."""
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = self._session_expiry_s
        try:
            self._client.connect(
                self.broker.host,
                self.broker.port,
                keepalive=KEEP_ALIVE_S,
                clean_start=self._clean_start,
                properties=properties,
            )
            deadline_s = time.monotonic() + CONNECT_TIMEOUT_S
            while self._connack is None:
                if time.monotonic() > deadline_s:
                    raise TimeoutError("no CONNACK: is it an MQTT broker?")
                self.turn(0.1)
        except OSError as error:  # ssl.SSLError and socket.gaierror are OSErrors
            self.abort()
            raise _in_words(self.broker, error) from error
        except UplinkError:
            self.abort()
            raise
        if self._connack.value >= REFUSED_FROM:
            self.abort()
            raise self._refused(self._connack)

    def publish(self, message: Outgoing) -> int:
        """Hand one message to the connection; its id, which `acknowledged` will name (QoS 1)."""
        properties = _publish_properties(message, PacketTypes.PUBLISH)
        info = self._client.publish(
            message.topic, message.payload, message.qos, message.retain, properties
        )
        if info.rc not in {paho.MQTT_ERR_SUCCESS, paho.MQTT_ERR_AGAIN}:
            raise self._lost(paho.error_string(info.rc))
        return info.mid

    def subscribe(self, topic_filter: str) -> None:
        """Ask for messages at QoS 1. Only the security team's view does; the agent never."""
        self._client.subscribe(topic_filter, qos=1)

    def turn(self, timeout_s: float) -> None:
        """Read and write what is possible, waiting at most `timeout_s`; raises when the connection is lost."""
        sock = self._client.socket()
        if sock is None:
            raise self._lost("connection closed")
        pending = sock.pending() if isinstance(sock, ssl.SSLSocket) else 0
        if not pending and not self._client.want_write():
            select.select([sock], [], [], timeout_s)
        code = self._client.loop(timeout=0.0)
        if code != paho.MQTT_ERR_SUCCESS and (self._connack is None or self._connack.value == 0):
            raise self._lost(paho.error_string(code))

    def acknowledged(self) -> list[tuple[int, int]]:
        """(message id, reason code) of the PUBACKs since the last call."""
        found = list(self._acknowledged)
        self._acknowledged.clear()
        return found

    def close(self) -> None:
        """Say DISCONNECT, so that the broker does not publish the Will, and close."""
        with suppress(OSError, UplinkError):
            self._client.disconnect()
            deadline_s = time.monotonic() + CONNECT_TIMEOUT_S
            while self._client.want_write() and time.monotonic() < deadline_s:
                if self._client.loop(timeout=0.1) != paho.MQTT_ERR_SUCCESS:
                    break
        self.abort()

    def abort(self) -> None:
        """Close the socket without a word; the broker publishes the Will."""
        self._client.on_disconnect = None
        self._client.shut()
        if self._flow is not None and self._flows is not None:
            self._flows.closed(self._flow)
            self._flow = None

    def _made(self, will: Outgoing | None) -> _Client:
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=self.broker.client_id,
            protocol=paho.MQTTv5,
            reconnect_on_failure=False,
        )
        client.open_socket = self._open_socket
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_log = self._on_log
        if self.broker.user is not None:
            client.username_pw_set(self.broker.user, self.broker.password)
        if will is not None:
            properties = _publish_properties(will, PacketTypes.WILLMESSAGE)
            client.will_set(will.topic, will.payload, will.qos, will.retain, properties)
        return client

    def _open_socket(self, host: str, port: int) -> socket.socket:
        """Connect to the first address that answers; each attempt's 5-tuple is told before it starts."""
        context = None
        if self.broker.tls:  # made anew for each connection: renewed certificates need no restart
            context = tls_context(self.broker.ca, self.broker.cert, self.broker.key)
        problem: OSError = ConnectionError("the name has no address")
        for family, kind, proto, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        ):
            sock = socket.socket(family, kind, proto)
            try:
                sock.settimeout(CONNECT_TIMEOUT_S)
                sock.bind(_local_address(family, address))
                self._flow = _flow(family, sock.getsockname(), address)
                if self._flows is not None:
                    self._flows.opened(self._flow)
                sock.connect(address)
                if context is not None:  # the handshake verifies the chain and the name
                    sock = context.wrap_socket(
                        sock, server_hostname=host, do_handshake_on_connect=False
                    )
                    sock.do_handshake()
            except OSError as error:
                sock.close()
                problem = error
                if self._flow is not None and self._flows is not None:
                    self._flows.closed(self._flow)
                continue
            return sock
        raise problem

    def _on_connect(
        self, _client: Any, _data: Any, flags: Any, reason: ReasonCode, properties: Any
    ) -> None:
        self._connack = reason
        self.session_present = bool(flags.session_present)
        maximum = getattr(properties, "ReceiveMaximum", None)
        self.receive_maximum = maximum or DEFAULT_RECEIVE_MAXIMUM

    def _on_disconnect(
        self, _client: Any, _data: Any, flags: Any, reason: ReasonCode, _properties: Any
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            self._farewell = reason

    def _on_publish(
        self, _client: Any, _data: Any, mid: int, reason: ReasonCode, _properties: Any
    ) -> None:
        self._acknowledged.append((mid, reason.value))

    def _on_message(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        self.messages.append((message.topic, bytes(message.payload)))

    def _on_log(self, _client: Any, _data: Any, level: int, line: str) -> None:
        if level == paho.MQTT_LOG_ERR:
            self._log_line = line

    def _lost(self, words: str) -> UplinkError:
        """What is known of why the connection ended."""
        name = self.broker.name
        if self._farewell is not None:
            words = (
                f"{name}: it ended the connection: {self._farewell} (0x{self._farewell.value:02x})"
            )
            if self._farewell.value == SESSION_TAKEN_OVER:
                words += "; another client uses the same id: give each gateway its own site.gateway"
            return UplinkError(UplinkReason.PROTOCOL, words)
        if "SSL" in self._log_line or "certificate" in self._log_line.lower():
            hint = "it may want a client certificate (cert, key)"
            if self.broker.cert is not None:
                hint = "it may not take our client certificate (cert)"
            words = f"{name}: TLS: {_tls_words(self._log_line)}; {hint}"
            return UplinkError(UplinkReason.TLS, words)
        if self._connack is None:
            hint = "a client certificate" if self.broker.tls else "TLS (mqtts://)"
            words = f"{name}: closed the connection before its CONNACK; it may want {hint}"
            return UplinkError(UplinkReason.PROTOCOL, words)
        return UplinkError(UplinkReason.UNREACHABLE, f"{name}: {words.lower().rstrip('.')}")

    def _refused(self, reason: ReasonCode) -> UplinkError:
        kind, advice = CONNACK_ADVICE.get(reason.value, (UplinkReason.PROTOCOL, "see its log"))
        words = f"{self.broker.name}: refused: {reason} (0x{reason.value:02x}); {advice}"
        return UplinkError(kind, words)


SESSION_TAKEN_OVER = 0x8E
CONNACK_ADVICE = {
    0x84: (UplinkReason.PROTOCOL, "it must speak MQTT 5"),
    0x85: (UplinkReason.CREDENTIALS, "it does not take this client id"),
    0x86: (UplinkReason.CREDENTIALS, "check the user and the password (user_file)"),
    0x87: (UplinkReason.CREDENTIALS, "check the user (user_file) or the client certificate (cert)"),
    0x8A: (UplinkReason.CREDENTIALS, "the client is banned there"),
    0x88: (UplinkReason.UNREACHABLE, "it is not ready"),
    0x89: (UplinkReason.UNREACHABLE, "it is busy"),
}


def _in_words(broker: Broker, error: OSError) -> UplinkError:
    name = broker.name
    if isinstance(error, socket.gaierror):
        words = f"{name}: the name cannot be resolved ({error.strerror}); check the URL and DNS"
        return UplinkError(UplinkReason.DNS, words)
    if isinstance(error, ssl.SSLCertVerificationError):
        words = (
            f"{name}: its certificate is not good: {error.verify_message.rstrip('.')}; "
            "check the authority (ca), and the host name in the URL"
        )
        return UplinkError(UplinkReason.TLS, words)
    if isinstance(error, ssl.SSLError):
        return UplinkError(
            UplinkReason.TLS, f"{name}: TLS: {error.reason or error}; is it a TLS port?"
        )
    reason = error.strerror or str(error) or type(error).__name__
    advice = CONNECT_ADVICE.get(error.errno or 0) or (TIMED_OUT if _timed_out(error) else "")
    if broker.tls and isinstance(error, ConnectionResetError):
        advice = "; is it a TLS port?"
    return UplinkError(UplinkReason.UNREACHABLE, f"{name}: {reason}{advice}")


def _tls_words(line: str) -> str:
    """`failed to receive on socket: [SSL: X] tlsv1 alert unknown ca (_ssl.c:2580)`: what people can use of it."""
    return line.rpartition("] ")[2].partition(" (_ssl")[0]


def _timed_out(error: OSError) -> bool:
    """The socket's own timeout has no number; an answer that we waited for has its own words."""
    return isinstance(error, TimeoutError) and str(error) == "timed out"


TIMED_OUT = "; is the host up, and may its port be reached from here?"
CONNECT_ADVICE = {
    errno.ECONNREFUSED: "; is a broker running there, on this port?",
    errno.ETIMEDOUT: TIMED_OUT,
    errno.EHOSTUNREACH: TIMED_OUT,
    errno.ENETUNREACH: "; is the network up?",
}


def _publish_properties(message: Outgoing, packet: int) -> Properties:
    properties = Properties(packet)  # type: ignore[no-untyped-call]
    properties.ContentType = "application/json"
    properties.PayloadFormatIndicator = 1
    if message.schema:
        properties.UserProperty = ("schema", message.schema)
    if message.expiry_s is not None:
        properties.MessageExpiryInterval = message.expiry_s
    return properties


def _local_address(family: int, remote: Any) -> Any:
    """The address that the kernel will send from, any port. Connecting a UDP socket sends nothing."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(remote)
        address, _port, *scope = probe.getsockname()
        return (address, 0, *scope)


def _flow(family: int, local: Any, remote: Any) -> Flow:
    def endpoint(address: Any) -> Any:
        return endpoint_of(socket.inet_pton(family, address[0].partition("%")[0]))

    return endpoint(local), local[1], endpoint(remote), remote[1]
