"""What `wardwatch alerts` does: the security team's view of what arrives at the broker.

It subscribes with a fixed client id, clean start off and a session of 7 days, so that what came while
it was away is shown when it is back; it publishes nothing. A gap in a gateway's sequence is reported,
an event that came twice (MQTT's at least once) is shown once.

Raises: `UplinkError` where the broker cannot be reached at the start; later it reconnects.
"""

import json
import time
from collections import OrderedDict
from dataclasses import dataclass, field

import click
from rich.console import Console

from agent.alert import topics
from agent.alert.render import row_of_event, show, terminal
from agent.cli_replay import note
from agent.errors import UplinkError
from agent.uplink.mqtt import Broker, Connection

SESSION_EXPIRY_S = 7 * 86_400
CLIENT_ID = "wardwatch-alerts"
RETRY_S = 5.0
GAP_S = 10.0
"""How long an event that others overtook may take."""
MAX_MISSING = 10_000
MAX_SEEN = 10_000
"""Ids of events that were shown; enough for what a broker sends again after a reconnect."""


@dataclass(slots=True)
class Reader:
    """Which events of which gateway have been shown."""

    as_json: bool
    console: Console = field(default_factory=terminal)
    n_shown: int = 0
    n_missing: int = 0
    _last: dict[str, int] = field(default_factory=dict)
    _missing: dict[str, dict[int, float]] = field(default_factory=dict)
    """By gateway: numbers that were left out, and since when."""
    _seen: OrderedDict[str, None] = field(default_factory=OrderedDict)

    def take(self, topic: str, payload: bytes) -> None:
        """Show one message; say what is missing before it."""
        try:
            event = json.loads(payload)
            row = row_of_event(event)
        except (ValueError, RecursionError) as error:
            note(f"{_clean(topic)}: left out: {_clean(str(error))}")
            return
        gateway = "/".join(topic.split("/")[2:5])
        metadata = event.get("metadata")
        metadata = metadata if isinstance(metadata, dict) else {}
        uid, sequence = metadata.get("uid"), metadata.get("sequence")
        if isinstance(uid, str) and not self._is_new(uid):
            return
        if isinstance(sequence, int):
            self._note_sequence(_clean(gateway), sequence)
        self.n_shown += 1
        if self.as_json:
            click.echo(payload)
        else:
            show(self.console, [row])

    def _is_new(self, uid: str) -> bool:
        if uid in self._seen:
            return False
        self._seen[uid] = None
        if len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)
        return True

    def _note_sequence(self, gateway: str, sequence: int) -> None:
        """Findings may overtake each other, so a number that is left out gets time to come."""
        last = self._last.get(gateway)
        missing = self._missing.setdefault(gateway, {})
        if missing.pop(sequence, None) is not None:
            return
        if last is not None and sequence <= last:
            note(f"{gateway}: its numbers begin anew at {sequence} (last was {last})")
            missing.clear()
        elif last is not None:
            now_s = time.monotonic()
            first = max(last + 1, sequence - MAX_MISSING)
            missing.update(dict.fromkeys(range(first, sequence), now_s))
        self._last[gateway] = sequence

    def report_gaps(self, *, older_than_s: float) -> None:
        """Name the numbers that have not come, each once."""
        before_s = time.monotonic() - older_than_s
        for gateway, missing in self._missing.items():
            gone = [sequence for sequence, since_s in missing.items() if since_s <= before_s]
            for sequence in gone:
                del missing[sequence]
            if gone:
                self.n_missing += len(gone)
                span = str(gone[0]) if len(gone) == 1 else f"{gone[0]} to {gone[-1]}"
                note(f"{gateway}: gap: {len(gone)} event(s) missing ({span})")


def watch(
    broker: Broker,
    *,
    as_json: bool,
    topic_filter: str | None = None,
    count: int | None = None,
    for_s: float | None = None,
) -> int:
    """Show events until interrupted, or `count` were shown, or `for_s` is over; how many were shown."""
    reader = Reader(as_json=as_json)
    until_s = time.monotonic() + for_s if for_s is not None else float("inf")
    connected = False
    while time.monotonic() < until_s and (count is None or reader.n_shown < count):
        try:
            connection = _subscribed(broker, topic_filter or topics.all_alerts())
            if not connected and not as_json:
                note(f"listening at {broker.name}; interrupt with Ctrl-C")
            connected = True
            try:
                while time.monotonic() < until_s and (count is None or reader.n_shown < count):
                    connection.turn(0.2)
                    while connection.messages:
                        reader.take(*connection.messages.popleft())
                    reader.report_gaps(older_than_s=GAP_S)
            finally:
                reader.report_gaps(older_than_s=0.0)
                connection.close()
        except UplinkError as error:
            if not connected:
                raise
            note(f"{error}; trying again")
            time.sleep(RETRY_S)
    return reader.n_shown


def _subscribed(broker: Broker, topic_filter: str) -> Connection:
    connection = Connection(broker, clean_start=False, session_expiry_s=SESSION_EXPIRY_S)
    connection.open()
    connection.subscribe(topic_filter)
    return connection


def _clean(text: str) -> str:
    """Somebody else's text for a terminal: printable, of bounded length."""
    return "".join(c for c in text if c.isprintable())[:200]
