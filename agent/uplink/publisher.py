"""The thread that owns the broker connection: it empties the spool and keeps the retained topics true.

It never sends a message that the spool has not committed, never two of one finding at a time, never
more than `WINDOW` unacknowledged, and never lets go of a message before its PUBACK. It subscribes to
nothing.

In: the spool; `Voice`, the words for what is said besides findings; `set_open`. Out: PUBLISHes.
Raises: nothing out of `run` (problems go to `report`, and to `state` for `health`); `send_all` raises
`UplinkError`. Remembers: which messages are in flight, and which topics the broker refused lately.
"""

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from agent.errors import UplinkError, UplinkReason
from agent.uplink.message import Message
from agent.uplink.mqtt import REFUSED_FROM, Broker, Connection, Outgoing
from agent.uplink.own_flows import OwnFlows
from agent.uplink.spool import Spool

WINDOW = 16
"""Unacknowledged findings; below the 20 that mosquitto takes by default, with room for the rest."""
TURN_S = 0.05
"""How long an idle turn waits; it adds to the delay of an alert."""
BACKOFF_S = (1.0, 60.0)
"""First and longest wait after a failure; doubled each time, and each wait is drawn from its upper half."""
STEADY_S = 30.0
"""A connection that held this long ends the doubling."""
HEALTH_S = (57.0, 63.0)
"""Every 60 s with jitter, so that a hospital's gateways do not speak at once."""
FIRST_HEALTH_S = (2.0, 8.0)
"""Soon after a connect: whoever watches wants to know that the sensor sees."""
DRAIN_S = 3.0
"""What a clean stop may take to send what waits; the rest stays in the spool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """What is said besides findings. Each callable gives the payload, JSON in UTF-8."""

    status_topic: str
    open_topic: str
    health_topic: str
    birth: Callable[[int], bytes]
    """Of `status` when connected; takes the connect sequence."""
    lost: Callable[[int], bytes]
    """The Last Will."""
    shutdown: Callable[[int], bytes]
    health: Callable[[], bytes]
    status_schema: str
    open_schema: str
    health_schema: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UplinkState:
    """Figures for `health`."""

    state: str
    """`connected`, `connecting`, `waiting` or `stopped`."""
    problem: str | None
    problem_reason: str | None
    n_connects: int
    n_failures: dict[str, int]
    """By `UplinkReason`."""
    n_published: int
    n_acknowledged: int
    n_refused: int
    refused_topics: tuple[str, ...]


@dataclass(slots=True)
class _Hold:
    """A topic that the broker refused."""

    until_s: float
    delay_s: float


@dataclass(slots=True)
class _Counts:
    connects: int = 0
    published: int = 0
    acknowledged: int = 0
    refused: int = 0
    failures: dict[str, int] = field(default_factory=dict)


class Publisher:
    """Spool to broker, with back-off, over as many connections as it takes."""

    def __init__(
        self,
        broker: Broker,
        spool: Spool,
        *,
        flows: OwnFlows | None = None,
        voice: Voice | None = None,
        rng: random.Random | None = None,
        report: Callable[[UplinkError | None], None] = lambda _error: None,
        stamp: Callable[[bytes, int], bytes] = lambda payload, _now_ms: payload,
    ) -> None:
        """`report` is told of each new problem, and None when all is well; from this thread.

        `stamp(payload, now_ms)` writes the time of sending (wall clock) into a finding's payload.
        """
        self._broker = broker
        self._spool = spool
        self._flows = flows
        self._voice = voice
        self._rng = rng or random.Random()
        self._report = report
        self._stamp = stamp
        self._connection: Connection | None = None
        self._connect_seq = 0
        self._in_flight: dict[int, tuple[int, Message]] = {}
        self._other_topics: dict[int, str] = {}
        self._held: dict[str, _Hold] = {}
        self._seen_commits = -1
        self._open_wanted: bytes | None = None
        self._open_said: bytes | None = None
        self._health_at_s = 0.0
        self._counts = _Counts()
        self._state = "stopped"
        self._problem: UplinkError | None = None
        self._told: set[str] = set()

    def set_open(self, payload: bytes) -> None:
        """The findings open now: published, retained, when it differs from what was said. Any thread."""
        self._open_wanted = payload

    def state(self) -> UplinkState:
        """Figures for `health`. Any thread."""
        problem = self._problem
        return UplinkState(
            state=self._state,
            problem=str(problem) if problem else None,
            problem_reason=str(problem.reason) if problem else None,
            n_connects=self._counts.connects,
            n_failures=dict(self._counts.failures),
            n_published=self._counts.published,
            n_acknowledged=self._counts.acknowledged,
            n_refused=self._counts.refused,
            refused_topics=tuple(self._held),
        )

    def run(self, stop: threading.Event) -> None:
        """Connect, publish, and connect again, until `stop`; then say goodbye."""
        delay_s = BACKOFF_S[0]
        while not stop.is_set():
            began_s = time.monotonic()
            try:
                self._session(stop)
            except UplinkError as error:
                self._fail(error)
                if time.monotonic() - began_s > STEADY_S:
                    delay_s = BACKOFF_S[0]
                self._state = "waiting"
                stop.wait(delay_s * self._rng.uniform(0.5, 1.0))
                delay_s = min(delay_s * 2, BACKOFF_S[1])
        self._state = "stopped"

    def send_all(self, timeout_s: float) -> None:
        """One connection, everything that the spool holds; for a replay. Raises `UplinkError`."""
        deadline_s = time.monotonic() + timeout_s
        with self._connected():
            while self._spool.depth:
                self._turn()
                if self._held:
                    assert self._problem is not None
                    raise self._problem
                if time.monotonic() > deadline_s:
                    words = f"{self._broker.name}: not acknowledged within {timeout_s:.0f} s"
                    raise UplinkError(UplinkReason.UNREACHABLE, words)

    def _session(self, stop: threading.Event) -> None:
        """One connection, until it is lost (`UplinkError`) or `stop`."""
        with self._connected():
            self._greet()
            while not stop.is_set():
                self._turn()
                self._speak()
            deadline_s = time.monotonic() + DRAIN_S
            while time.monotonic() < deadline_s and (self._in_flight or self._send()):
                self._turn()
            self._speak()
            self._take_leave()

    @contextlib.contextmanager
    def _connected(self) -> Iterator[None]:
        """A connection that ends with DISCONNECT when all went well, and without a word otherwise."""
        self._state = "connecting"
        self._in_flight.clear()
        self._other_topics.clear()
        self._seen_commits = -1
        self._open_said = None
        will = None
        if self._voice is not None:
            self._connect_seq = self._spool.next_connect_seq()
            will = self._status(self._voice.lost(self._connect_seq))
        connection = Connection(self._broker, self._flows, will=will)
        try:
            connection.open()
            self._connection = connection
            self._counts.connects += 1
            self._state = "connected"
            self._recover()
            yield
            connection.close()
        finally:
            self._connection = None
            connection.abort()

    def _greet(self) -> None:
        if self._voice is not None:
            self._say(self._status(self._voice.birth(self._connect_seq)))
            self._health_at_s = time.monotonic() + self._rng.uniform(*FIRST_HEALTH_S)

    def _speak(self) -> None:
        """`open` when it changed, `health` when it is due."""
        voice, wanted = self._voice, self._open_wanted
        if voice is None:
            return
        if wanted is not None and wanted != self._open_said:
            self._say(
                Outgoing(
                    topic=voice.open_topic, payload=wanted, retain=True, schema=voice.open_schema
                )
            )
            self._open_said = wanted
        if time.monotonic() >= self._health_at_s:
            self._health_at_s = time.monotonic() + self._rng.uniform(*HEALTH_S)
            self._say(
                Outgoing(
                    topic=voice.health_topic,
                    payload=voice.health(),
                    qos=0,
                    schema=voice.health_schema,
                )
            )

    def _take_leave(self) -> None:
        """`status` says shutdown; the DISCONNECT that follows keeps the Will from being published."""
        if self._voice is None:
            return
        self._say(self._status(self._voice.shutdown(self._connect_seq)))
        deadline_s = time.monotonic() + DRAIN_S
        while self._other_topics and time.monotonic() < deadline_s:
            self._turn()

    def _status(self, payload: bytes) -> Outgoing:
        assert self._voice is not None
        return Outgoing(
            topic=self._voice.status_topic,
            payload=payload,
            retain=True,
            schema=self._voice.status_schema,
        )

    def _say(self, message: Outgoing) -> None:
        assert self._connection is not None
        mid = self._connection.publish(message)
        if message.qos:
            self._other_topics[mid] = message.topic

    def _turn(self) -> None:
        """Send what may go, read what has come."""
        assert self._connection is not None
        self._send()
        self._connection.turn(TURN_S)
        for mid, code in self._connection.acknowledged():
            self._settle(mid, code)

    def _send(self) -> int:
        """Publish what the spool has, in order, as far as the window goes; how many went."""
        assert self._connection is not None
        now_s = time.monotonic()
        expired = [topic for topic, hold in self._held.items() if hold.until_s <= now_s]
        commits = self._spool.n_commits + self._spool.n_failed_commits
        room = min(WINDOW, self._connection.receive_maximum - 1 or 1) - len(self._in_flight)
        if room <= 0 or (commits == self._seen_commits and not expired):
            return 0
        rows = self._spool.take(
            room,
            skip_keys={message.key for _, message in self._in_flight.values()},
            skip_topics=set(self._held) - set(expired),
        )
        if len(rows) < room:
            self._seen_commits = commits  # no more to be had until something changes
        for sequence, message in rows:
            mid = self._connection.publish(
                Outgoing(
                    topic=message.topic,
                    payload=self._stamp(message.payload, time.time_ns() // 1_000_000),
                    schema=message.schema,
                    expiry_s=message.expiry_s,
                )
            )
            self._in_flight[mid] = (sequence, message)
            self._counts.published += 1
        return len(rows)

    def _settle(self, mid: int, code: int) -> None:
        """A PUBACK: the row leaves, or stays and its topic rests."""
        self._seen_commits = -1
        topic = self._other_topics.pop(mid, None)
        sequence, message = self._in_flight.pop(mid, (0, None))
        if message is not None:
            topic = message.topic
        if topic is None:
            return
        if code < REFUSED_FROM:
            if message is not None:
                self._spool.done(sequence)
                self._counts.acknowledged += 1
            if self._held.pop(topic, None) is not None and not self._held:
                self._recover()
            return
        self._counts.refused += 1
        if message is not None:
            self._hold(topic)
        advice = PUBACK_ADVICE.get(code, "see its log")
        words = f"{self._broker.name}: refuses topic {topic} (0x{code:02x}); {advice}"
        self._fail(UplinkError(UplinkReason.ACL, words))

    def _hold(self, topic: str) -> None:
        """Let a refused topic rest; longer after each probe, once for all that went with the probe."""
        now_s = time.monotonic()
        old = self._held.get(topic)
        if old is None:
            self._held[topic] = _Hold(now_s + BACKOFF_S[0], BACKOFF_S[0])
        elif old.until_s <= now_s:
            delay_s = min(old.delay_s * 2, BACKOFF_S[1])
            self._held[topic] = _Hold(now_s + delay_s, delay_s)

    def _fail(self, error: UplinkError) -> None:
        reason = str(error.reason)
        self._counts.failures[reason] = self._counts.failures.get(reason, 0) + 1
        self._problem = error
        if str(error) not in self._told:
            self._told.add(str(error))
            self._report(error)

    def _recover(self) -> None:
        """All is well, for the first time or again."""
        if self._problem is not None or self._counts.connects == 1:
            self._problem = None
            self._told.clear()
            self._report(None)


PUBACK_ADVICE = {
    0x83: "it has its own reason not to take it",
    0x87: "allow this user to write there (ACL)",
    0x90: "it does not take this topic name",
    0x97: "this user's quota is used up",
    0x99: "it does not take this payload format",
}
