"""What `wardwatch replay` does: findings of capture files on stdout, everything else on stderr.

Exit status, the first that applies: 3 `--fail-on` was met, 75 the broker did not take the findings,
1 a file could not be read (the others were), 0.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from agent.alert.finding import stamp_transmit_time
from agent.alert.render import Row, row_of_alert, show, table, terminal
from agent.alert.severity import SEVERITIES
from agent.assembly import Site, baseline_of, make_message, make_site, make_watch
from agent.config import Config
from agent.errors import CaptureError, UplinkError
from agent.records import Alert
from agent.replay import OnProgress, replay_file, replay_merged
from agent.score.baseline import BaselineDetector
from agent.score.baseline_state import restore
from agent.uplink.mqtt import Broker
from agent.uplink.publisher import Publisher
from agent.uplink.spool import Spool

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
    language: str | None = None
    """None: the settings'."""
    baseline: Path | None = None
    """File of a baseline to judge by, without learning."""


@dataclass(slots=True)
class _Run:
    """What came out so far."""

    site: Site
    options: Options
    spool: Spool | None
    sequence: int = 0
    worst: int = -1
    rows: list[Row] = field(default_factory=list)
    """Events of the file that is being read, for its table; none with `--json`."""
    uids: set[str] = field(default_factory=set)
    """Of the findings in that file."""
    console: Console = field(default_factory=terminal)
    n_unread: int = 0

    def tell(self, alert: Alert) -> None:
        """Number and print one event; queue it for the broker."""
        self.sequence += 1
        self.uids.add(alert.uid)
        self.worst = max(self.worst, SEVERITIES.index(alert.severity))
        message = make_message(alert, self.sequence, context=self.site.context)
        if self.options.as_json:
            click.echo(message.payload)
        else:
            context = self.site.context
            row = row_of_alert(
                alert,
                devices=context.devices,
                features=context.features,
                language=context.language,
            )
            self.rows.append(row)
            show(self.console, [row])
        if self.spool is not None:
            self.spool.put(lambda _sequence: message)


def replay(options: Options) -> int:
    """Read the files, print what was found; the exit status. Raises `AgentError` of the settings."""
    site = make_site(
        options.config,
        bundle_path=options.bundle,
        trust=options.trust,
        no_model=options.no_model,
        raw_addresses=True if options.raw_addresses else None,
        language=options.language,
    )
    if site.tuning is not None and site.tuning.problem:
        note(f"{site.tuning.problem}; what commands have tuned is left out")
    if site.bundle_problem and not options.no_model:
        note(f"rules only: {site.bundle_problem}" if site.bundle is None else site.bundle_problem)
    run = _Run(site=site, options=options, spool=Spool(None) if options.broker else None)
    for group in [options.files] if options.merge else [(file,) for file in options.files]:
        _one(run, group)
    status = 1 if run.n_unread else 0
    if run.spool is not None and options.broker is not None:
        run.spool.commit()
        try:
            publisher = Publisher(options.broker, run.spool, stamp=stamp_transmit_time)
            publisher.send_all(SEND_TIMEOUT_S)
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
    watch = make_watch(run.site, name, baseline=_baseline(run))
    run.rows.clear()
    run.uids.clear()
    n_before = run.sequence
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
        run.n_unread += 1
        note(str(error))
        return
    for problem in report.unread:
        run.n_unread += 1
        note(str(problem))
    if report.truncated:
        note(f"{report.truncated}; what is whole was read")
    for reason, n in report.skipped.items():
        note(f"{name}: {n:,} frames left out: {reason}")
    if run.rows:
        run.console.print(table(run.rows, name=name, language=run.site.context.language))
    click.echo(
        f"{name}: {report.n_frames:,} frames, {report.duration_s:,.0f} s of traffic, "
        f"{_found(run, n_before)}; read in {time.monotonic() - began_s:.1f} s",
        err=True,
    )


def _baseline(run: _Run) -> BaselineDetector | None:
    """The baseline as it stands in its file, anew for each run. Raises `BaselineError`."""
    if run.options.baseline is None:
        return None
    detector = baseline_of(run.site)
    restore(run.options.baseline, detector)
    detector.frozen = True
    return detector


def _found(run: _Run, n_before: int) -> str:
    """How many findings, and in how many events they are told."""
    n_events = run.sequence - n_before
    if not n_events:
        return "no findings"
    n = len(run.uids)
    return f"{n} finding{'' if n == 1 else 's'} ({n_events} event{'' if n_events == 1 else 's'})"


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
