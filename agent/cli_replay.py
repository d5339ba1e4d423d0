"""What `wardwatch replay` does: findings of capture files on stdout, everything else on stderr.

Exit status, the first that applies: 3 `--fail-on` was met, 75 the broker did not take the findings,
1 a file could not be read (the others were), 0.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from agent.alert import topics
from agent.alert.finding import SCHEMA_NAME, encode, to_bytes
from agent.assembly import Site, make_site, make_watch
from agent.cli_text import COLOURS, SEVERITIES, finding_text, severity_of
from agent.config import Config
from agent.errors import CaptureError, UplinkError
from agent.records import Alert
from agent.replay import OnProgress, Report, replay_file, replay_merged
from agent.uplink.message import Message
from agent.uplink.mqtt import Broker
from agent.uplink.publisher import Publisher
from agent.uplink.spool import Spool

EXPIRY_S = 7 * 86_400
SEND_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command line of `replay`."""

    files: tuple[Path, ...]
    as_json: bool = False
    bundle: Path | None = None
    trust: tuple[Path, ...] = ()
    no_model: bool = False
    broker: Broker | None = None
    fail_on: str | None = None
    merge: bool = False
    close: bool = False
    config: Config | None = None
    raw_addresses: bool = False


@dataclass(slots=True)
class _Run:
    """What came out so far."""

    site: Site
    options: Options
    spool: Spool | None
    sequence: int = 0
    worst: int = -1
    n_new: int = 0
    unread: list[str] = field(default_factory=list)

    def tell(self, alert: Alert) -> None:
        """Number, encode and print one event; queue it for the broker."""
        self.sequence += 1
        event = encode(alert, context=self.site.context, sequence=self.sequence)
        self.n_new += alert.activity == "create"
        self.worst = max(self.worst, SEVERITIES.index(alert.severity))
        if self.options.as_json:
            click.echo(to_bytes(event))
        else:
            # Addresses help whoever holds the capture; they go to this terminal and nowhere else.
            raw = replace(self.site.context, raw_addresses=True)
            show(encode(alert, context=raw, sequence=self.sequence))
        if self.spool is not None:
            context = self.site.context
            topic = topics.alert(
                context.site,
                context.ward,
                context.gateway,
                highest_severity=alert.highest_severity,
                source_kind=alert.source_kind,
                kind=alert.kind,
            )
            message = Message(
                topic=topic,
                payload=to_bytes(event),
                key=alert.uid,
                severity=SEVERITIES.index(alert.highest_severity) + 1,
                schema=SCHEMA_NAME,
                expiry_s=EXPIRY_S,
                created_ns=time.time_ns(),
            )
            self.spool.put(lambda _sequence: message)


def replay(options: Options) -> int:
    """Read the files, print what was found; the exit status. Raises `AgentError` of the settings."""
    site = make_site(
        options.config,
        bundle_path=options.bundle,
        trust=options.trust,
        no_model=options.no_model,
        raw_addresses=True if options.raw_addresses else None,
    )
    if site.bundle_problem and not options.no_model:
        note(f"rules only: {site.bundle_problem}" if site.bundle is None else site.bundle_problem)
    run = _Run(site=site, options=options, spool=Spool(None) if options.broker else None)
    for group in [options.files] if options.merge else [(file,) for file in options.files]:
        _one(run, group)
    status = 1 if run.unread else 0
    if run.spool is not None and options.broker is not None:
        run.spool.commit()
        try:
            Publisher(options.broker, run.spool).send_all(SEND_TIMEOUT_S)
        except UplinkError as error:
            note(f"{error}; the findings above were not all published")
            status = error.exit_status
        run.spool.close()
    if options.fail_on is not None and run.worst >= SEVERITIES.index(options.fail_on):
        status = 3
    return status


def _one(run: _Run, files: tuple[Path, ...]) -> None:
    """One run over one file, or over several merged; a file that cannot be read is noted."""
    name = files[0].name if len(files) == 1 else f"{len(files)} files"
    watch = make_watch(run.site, name)
    before = run.n_new
    began_s = time.monotonic()
    try:
        with _progress(name) as on_progress:
            if len(files) == 1:
                report = replay_file(
                    files[0],
                    watch,
                    on_alert=run.tell,
                    on_progress=on_progress,
                    close=run.options.close,
                )
            else:
                report = replay_merged(
                    files,
                    watch,
                    on_alert=run.tell,
                    on_progress=on_progress,
                    close=run.options.close,
                )
    except CaptureError as error:
        run.unread.append(name)
        note(str(error))
        return
    if report.truncated:
        note(f"{report.truncated}; what is whole was read")
    for reason, n in report.skipped.items():
        note(f"{name}: {n:,} frames left out: {reason}")
    _summary(report, run.n_new - before, time.monotonic() - began_s)


def _summary(report: Report, n_new: int, took_s: float) -> None:
    click.echo(
        f"{report.name}: {report.n_frames:,} frames, {report.duration_s:,.0f} s of traffic, "
        f"{n_new} finding{'' if n_new == 1 else 's'}; read in {took_s:.1f} s",
        err=True,
    )


@contextmanager
def _progress(name: str) -> Iterator[OnProgress]:
    """A bar on stderr where that is a terminal, for files that take their time."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _frames, _share: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(name, total=100)
        yield lambda _frames, share: bar.update(task, completed=round(share * 100))


def note(line: str) -> None:
    """One line on stderr."""
    click.echo(f"wardwatch: {line}", err=True)


def show(event: Mapping[str, Any]) -> None:
    """One event in words on stdout, its first line in the colour of its severity."""
    first, *rest = finding_text(event)
    click.echo("\n".join([click.style(first, fg=COLOURS[severity_of(event)]), *rest]))
