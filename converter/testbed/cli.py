"""`wardwatch-convert testbed …`: record plans, show what they expand to, check what the machine lacks."""

import re
import sys
from pathlib import Path

import click

from agent.errors import AgentError, ConfigError
from converter.testbed.plan import Plan, load_plan
from converter.testbed.schedule import RunSpec, expand
from converter.testbed.variants import VARIANTS


@click.group(help="Record labelled captures in network namespaces, with real tools.")
def testbed() -> None:
    """Group; mounted under `wardwatch-convert`."""


_plan = click.option(
    "--plan", "plan_file", required=True, type=click.Path(path_type=Path), help="Plan (TOML)."
)
_seeds = click.option(
    "--seeds", default=None, metavar="N|A:B", help="Draw the plan anew from these seeds."
)
_only = click.option(
    "--only", multiple=True, metavar="RUN", help="Only this run; may be given several times."
)


def _runs(plan: Plan, seeds: str | None, only: tuple[str, ...]) -> list[RunSpec]:
    """The plan's runs: once, or once a seed, or the named ones."""
    if seeds is None:
        specs = expand(plan)
    else:
        match = re.fullmatch(r"(\d{1,9})(?::(\d{1,9}))?", seeds)
        if match is None:
            raise ConfigError("--seeds", f"{seeds!r} is neither a number N nor a range A:B")
        first, last = (
            (int(match[1]), int(match[2])) if match[2] else (int(match[1]), int(match[1]) + 1)
        )
        specs = [s for seed in range(first, last) for s in expand(plan, seed)]
    known = {s.run for s in specs}
    for name in only:
        if name not in known:
            raise ConfigError(
                "--only", f"{name!r} is no run of this plan (`testbed plan` lists them)"
            )
    return [s for s in specs if not only or s.run in only]


def _fail(error: AgentError) -> None:
    click.echo(f"error: {error}", err=True)
    sys.exit(error.exit_status)


@testbed.command()
@_plan
@_seeds
@_only
@click.option(
    "--out", type=click.Path(path_type=Path), default=None, help="Folder; default lab/PLAN."
)
@click.option(
    "--jobs", type=click.IntRange(1, 32), default=2, show_default=True, help="Wards at once."
)
@click.option(
    "--budget", default=None, metavar="40m", help="Begin no run after this long (s, m or h)."
)
def record(
    plan_file: Path,
    seeds: str | None,
    only: tuple[str, ...],
    out: Path | None,
    jobs: int,
    budget: str | None,
) -> None:
    """Record a plan; finished runs are skipped, so it can be stopped and resumed."""
    from converter.testbed.campaign import record_all  # noqa: PLC0415 - loads the decoder
    from converter.testbed.tools import require_tools, tool_versions  # noqa: PLC0415

    try:
        plan = load_plan(plan_file)
        specs = _runs(plan, seeds, only)
        budget_s = _seconds(budget)
        used = {step.tool for spec in specs for step in spec.steps}
        require_tools(used)
        folder = (out or Path("lab") / plan.name).resolve()
        report = record_all(
            specs,
            folder,
            jobs=jobs,
            budget_s=budget_s,
            tools=tool_versions(used),
            say=lambda line: click.echo(line, err=True),
        )
    except AgentError as e:
        _fail(e)
        return
    click.echo(
        f"{folder}: {len(report.recorded)} recorded, {len(report.skipped)} already there, "
        f"{len(report.failed)} failed, {len(report.left)} left"
    )
    if report.failed or report.left:
        sys.exit(1)


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)([smh]?)", text)
    if match is None:
        raise ConfigError("--budget", f"{text!r} is no duration such as 90s, 40m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


@testbed.command("plan")
@_plan
@_seeds
@_only
def show_plan(plan_file: Path, seeds: str | None, only: tuple[str, ...]) -> None:
    """Print what a plan expands to: runs, and their steps in order."""
    try:
        specs = _runs(load_plan(plan_file), seeds, only)
    except AgentError as e:
        _fail(e)
        return
    for spec in specs:
        click.echo(
            f"{spec.run}  {spec.duration_s:.0f} s  {len(spec.ward.hosts)} hosts  {spec.digest}"
        )
        for s in spec.steps:
            click.echo(f"  {s.start_s:7.1f}  {s.lane:6}  {s.kind or '-':20} {s.name}")
    click.echo(f"{len(specs)} runs, {sum(s.duration_s for s in specs) / 60:.0f} minutes of capture")


@testbed.command()
def check() -> None:
    """Say what the machine lacks for a recording, and list the variants."""
    from converter.testbed.tools import require_tools  # noqa: PLC0415

    for v in VARIANTS:
        click.echo(f"{v.kind:20} {v.name:24} {v.tool}")
    try:
        require_tools(v.tool for v in VARIANTS)
    except AgentError as e:
        _fail(e)
        return
    click.echo("ready to record")


@testbed.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
def label(folder: Path) -> None:
    """Label recorded runs again, by the present rule and decoder."""
    from converter.testbed.campaign import relabel  # noqa: PLC0415

    try:
        done = relabel(folder)
    except AgentError as e:
        _fail(e)
        return
    click.echo(f"{folder}: {len(done)} runs labelled")


@testbed.command()
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--ledger",
    "ledger_file",
    type=click.Path(path_type=Path),
    default=Path("datasets/quiet-ledger.jsonl"),
    show_default=True,
    help="The ledger (JSON lines).",
)
@click.option(
    "--bundle", type=click.Path(path_type=Path), default=None, help="Bundle; default: the shipped."
)
@click.option("--again", is_flag=True, help="Also runs that this bundle has been counted on.")
def ledger(
    folders: tuple[Path, ...], ledger_file: Path, bundle: Path | None, *, again: bool
) -> None:
    """Replay the quiet runs of FOLDERS and add hours and findings to the ledger; then sum it up.

    Without a folder: only the sum. Each run goes through the agent twice, with default settings and with the
    site's roles from the manifest. The captures may be removed afterwards; the ledger stands.
    """
    from converter.testbed.ledger import (  # noqa: PLC0415  loads the agent
        count_folder,
        read_ledger,
        summary,
    )

    try:
        for folder in folders:
            count_folder(
                folder,
                ledger_file,
                bundle=bundle,
                again=again,
                say=lambda line: click.echo(line, err=True),
            )
        lines = read_ledger(ledger_file)
    except AgentError as e:
        _fail(e)
        return
    for line in summary(lines):
        click.echo(line)
