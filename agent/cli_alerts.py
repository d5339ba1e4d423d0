"""What `wardwatch alerts` does: the security team's view of what arrives at the broker.

It subscribes with a fixed client id, clean start off and a session of 7 days, so that what came while
it was away is shown when it is back; it publishes nothing. A gap in a gateway's sequence is reported,
with `--state` across runs, too; an event that came twice (MQTT's at least once) is shown once.

Raises: `UplinkError` where the broker cannot be reached at the start; later it reconnects. `AgentError`
where the file of `--state` cannot be read or written.
"""

import json
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

import click
from rich.console import Console

from agent.alert import topics
from agent.alert.render import PIPE_COLUMNS, Row, row_of_event, show, table, terminal
from agent.alert.sequences import Sequences
from agent.alert.words import DEFAULT
from agent.cli_replay import note
from agent.errors import AgentError, UplinkError
from agent.state_files import write_whole
from agent.uplink.mqtt import Broker, Connection

SESSION_EXPIRY_S = 7 * 86_400
CLIENT_ID = "wardwatch-alerts"
RETRY_S = 5.0
GAP_S = 10.0
"""How long an event that others overtook may take."""
MAX_FINDINGS = 10_000
"""Of the summary; the longest unheard go first, closed ones before open ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What of the events is shown, and how."""

    as_json: bool = False
    summary: bool = False
    """A table of the findings at the end: on stderr with `as_json`, whose stdout holds events only."""
    state: Path | None = None
    """Where it is remembered what has come, for the next run."""
    language: str | None = None
    """None: as each gateway wrote it."""


@dataclass(slots=True)
class Reader:
    """Which events of which gateway have been shown."""

    view: View
    console: Console = field(default_factory=terminal)
    sequences: Sequences = field(default_factory=Sequences)
    n_shown: int = 0
    _findings: OrderedDict[str, Row] = field(default_factory=OrderedDict)
    _unsaved: bool = False

    def take(self, topic: str, payload: bytes) -> None:
        """Show one message; say what is missing before it."""
        try:
            event = json.loads(payload)
            row = row_of_event(event, language=self.view.language)
        except (ValueError, RecursionError) as error:
            note(f"{_clean(topic)}: left out: {_clean(str(error))}")
            return
        gateway = "/".join(topic.split("/")[2:5])
        metadata = event.get("metadata")
        metadata = metadata if isinstance(metadata, dict) else {}
        uid, sequence = metadata.get("uid"), metadata.get("sequence")
        if isinstance(uid, str) and not self.sequences.is_new(uid):
            return
        self._unsaved = True
        if isinstance(sequence, int):
            for line in self.sequences.take(_clean(gateway), sequence, now_s=time.monotonic()):
                note(line)
        self.n_shown += 1
        if self.view.summary:
            self._remember(row)
        if self.view.as_json:
            click.echo(payload)
        else:
            show(self.console, [row])

    def report_gaps(self, *, older_than_s: float) -> None:
        """Name the numbers that have not come, each once."""
        for line in self.sequences.gaps(now_s=time.monotonic(), patience_s=older_than_s):
            self._unsaved = True
            note(line)

    def save(self) -> None:
        """Write down what has come, where that is wanted and anything new did."""
        if self.view.state is not None and self._unsaved:
            write_state(self.view.state, self.sequences)
            self._unsaved = False

    def summarise(self) -> None:
        """The table of the findings that were heard of, and how many events were missing."""
        if not self.view.summary:
            return
        console = Console(stderr=True, width=PIPE_COLUMNS) if self.view.as_json else self.console
        language = self.view.language or DEFAULT
        console.print(table(self._findings.values(), language=language, last=True))
        if self.sequences.n_missing:
            note(f"{self.sequences.n_missing} event(s) missing in all")

    def _remember(self, row: Row) -> None:
        self._findings[row.uid] = row
        self._findings.move_to_end(row.uid)
        if len(self._findings) > MAX_FINDINGS:
            closed = (uid for uid, kept in self._findings.items() if kept.activity == "closed")
            self._findings.pop(next(closed, next(iter(self._findings))))


def read_state(path: Path) -> Sequences:
    """What the last run wrote; nothing where there is no such file. `AgentError` on any other file."""
    try:
        return Sequences.restored(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Sequences()
    except ValueError as error:
        raise AgentError(
            f"{path}: not written by `wardwatch alerts --state`; name another file"
        ) from error
    except OSError as error:
        raise AgentError(f"{path}: cannot be read: {error.strerror}") from error


def write_state(path: Path, sequences: Sequences) -> None:
    """Replace the file as a whole, so that a kill leaves the old or the new one."""
    try:
        write_whole(path, sequences.stored().encode())
    except OSError as error:
        raise AgentError(f"{path}: cannot be written: {error.strerror}") from error


def watch(
    broker: Broker,
    view: View,
    *,
    topic_filter: str | None = None,
    count: int | None = None,
    for_s: float | None = None,
) -> int:
    """Show events until interrupted, or `count` were shown, or `for_s` is over; how many were shown."""
    reader = Reader(view)
    if view.state is not None:
        reader.sequences = read_state(view.state)
        write_state(
            view.state, reader.sequences
        )  # what cannot be written is said before, not after
    try:
        _read(reader, broker, topic_filter=topic_filter, count=count, for_s=for_s)
    finally:
        reader.save()
        reader.summarise()
    return reader.n_shown


def _read(
    reader: Reader,
    broker: Broker,
    *,
    topic_filter: str | None,
    count: int | None,
    for_s: float | None,
) -> None:
    until_s = time.monotonic() + for_s if for_s is not None else float("inf")
    connected = False

    def go_on() -> bool:
        return time.monotonic() < until_s and (count is None or reader.n_shown < count)

    while go_on():
        try:
            connection = _subscribed(broker, topic_filter or topics.all_alerts())
            if not connected and not reader.view.as_json:
                note(f"listening at {broker.name}; interrupt with Ctrl-C")
            connected = True
            try:
                while go_on():
                    connection.turn(0.2)
                    while connection.messages:
                        reader.take(*connection.messages.popleft())
                    reader.report_gaps(older_than_s=GAP_S)
                    reader.save()
            finally:
                reader.report_gaps(older_than_s=0.0)
                connection.close()
        except UplinkError as error:
            if not connected:
                raise
            note(f"{error}; trying again")
            time.sleep(RETRY_S)


def _subscribed(broker: Broker, topic_filter: str) -> Connection:
    connection = Connection(broker, clean_start=False, session_expiry_s=SESSION_EXPIRY_S)
    connection.open()
    connection.subscribe(topic_filter)
    return connection


def _clean(text: str) -> str:
    """Somebody else's text for a terminal: printable, of bounded length."""
    return "".join(c for c in text if c.isprintable())[:200]
