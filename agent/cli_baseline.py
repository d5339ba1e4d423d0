"""`wardwatch baseline`: what is normal for each device here; show it, correct it, take rows out for retraining.

It works on the files in `state_dir/baseline`. While the service runs, it owns them: then a change is a request that
the service takes up within a second, and `status` shows what was saved last (every ten minutes, and after a change).

Raises: `AgentError` in one line. Exit status 1 where a device is not known, or nothing is learned yet.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.errors import AgentError, BaselineError, BaselineReason, ConfigError

if TYPE_CHECKING:
    from agent.assembly import Site
    from agent.baseline_store import Request
    from agent.records import Endpoint
    from agent.score.baseline import BaselineDetector

FILE = click.Path(path_type=Path, readable=False)
MAX_SHOWN = 40
"""Devices in the table of a terminal; `--json` has them all."""


@click.group("baseline", short_help="Show and correct what is normal for each device.")
def baseline() -> None:
    """What is normal for each device on this ward, learned here; what is not is a `device_anomaly`.

    \b
    wardwatch baseline status --config agent.toml            how far it is, what it knows
    wardwatch baseline learn PUMP-07 --config agent.toml     what this device does now is right
    wardwatch baseline freeze --config agent.toml            judge, learn nothing
    wardwatch baseline export rows.npz --config agent.toml   quiet rows, without addresses
    """


def _options(command: Any) -> Any:
    """The two options that every command has."""
    command = click.option("--source", metavar="NAME", help="One capture source. Default: all.")(
        command
    )
    return click.option(
        "--config", "config_file", type=FILE, required=True, help="The settings (TOML)."
    )(command)


@baseline.command("status")
@_options
@click.option("--json", "as_json", is_flag=True, help="One source a line.")
def status(config_file: Path, source: str | None, *, as_json: bool) -> None:
    """Show how far it is, the alarm budget, and what is known of each device.

    Addresses are shown: this is for the gateway's own terminal. "many": too many to say that one is new.
    """
    from agent.score.baseline_status import devices, summary  # noqa: PLC0415 -- heavy: numpy

    site = _site(config_file)
    for name, path in _files(site, source):
        detector = _load(site, path)
        rows = [{**_named(site, host, mac), **row} for host, mac, row in devices(detector)]
        whole = {
            "source": name,
            "saved_ago_s": round(max(0.0, time.time() - path.stat().st_mtime)),
            **summary(detector),
            "devices": rows,
        }
        if as_json:
            click.echo(json.dumps(whole, ensure_ascii=False))
        else:
            _show(whole)


@baseline.command("learn")
@_options
@click.argument("device", required=False)
def learn(config_file: Path, source: str | None, device: str | None) -> None:
    """Learn again after `freeze`; with DEVICE (asset tag or address): what it does now is right.

    The device is then learned anew on top of what is known, findings or not, and is silent for the learning time.
    """
    _change(config_file, source, "learn", device)


@baseline.command("freeze")
@_options
def freeze(config_file: Path, source: str | None) -> None:
    """Judge, and learn nothing, until `learn`."""
    _change(config_file, source, "freeze", None)


@baseline.command("reset")
@_options
@click.argument("device", required=False)
@click.option("--yes", is_flag=True, help="Do not ask.")
def reset(config_file: Path, source: str | None, device: str | None, *, yes: bool) -> None:
    """Forget DEVICE (asset tag or address), or everything, and begin to learn."""
    if not yes and device is None:
        click.confirm("Forget everything that was learned here?", abort=True)
    _change(config_file, source, "reset", device)


@baseline.command("export")
@_options
@click.argument("out", type=FILE)
def export(config_file: Path, source: str | None, out: Path) -> None:
    """Write a sample of quiet rows to OUT (.npz) for retraining: features only, no address, no time."""
    from agent.score.baseline_state import export as write  # noqa: PLC0415 -- heavy: numpy

    site = _site(config_file)
    files = _files(site, source)
    if len(files) > 1:
        names = ", ".join(name for name, _ in files)
        raise AgentError(f"there is a baseline of each source: say which: --source ({names})")
    n = write(_load(site, files[0][1]), out)
    click.echo(f"{out}: {n:,} rows")


# -- work


def _site(config_file: Path) -> Site:
    from agent.assembly import make_site  # noqa: PLC0415 -- heavy: numpy
    from agent.config import load_config  # noqa: PLC0415

    return make_site(load_config(config_file), no_model=True)


def _folder(site: Site) -> Path:
    from agent.baseline_store import FOLDER  # noqa: PLC0415 -- heavy: numpy

    assert site.config is not None
    return site.config.site.state_dir / FOLDER


def _files(site: Site, source: str | None) -> list[tuple[str, Path]]:
    """Source and file; raises where there is none."""
    from agent.baseline_store import file_of, sources_in  # noqa: PLC0415 -- heavy: numpy

    folder = _folder(site)
    names = sources_in(folder)
    if source is not None and source not in names:
        raise BaselineError(BaselineReason.NOT_FOUND, f"{folder}: no baseline of {source} yet")
    if not names:
        raise BaselineError(
            BaselineReason.NOT_FOUND, f"{folder}: nothing is learned yet; `wardwatch run` does that"
        )
    return [(name, file_of(folder, name)) for name in ([source] if source else names)]


def _load(site: Site, path: Path) -> BaselineDetector:
    from agent.assembly import baseline_of  # noqa: PLC0415 -- heavy: numpy
    from agent.score.baseline_state import restore  # noqa: PLC0415

    detector = baseline_of(site)
    restore(path, detector)
    return detector


def _change(config_file: Path, source: str | None, action: Any, device: str | None) -> None:
    """Do it on the files, or ask the running service to."""
    from agent.baseline_store import Request, ask, locked  # noqa: PLC0415 -- heavy: numpy

    site = _site(config_file)
    request = Request(action=action, source=source, device=_address(site, device))
    folder = _folder(site)
    with locked(folder) as ours:
        if ours:
            _change_files(site, request, device)
            return
    if not ask(folder, request):
        raise AgentError(f"{folder}: in use, and the service did not take up the request")
    click.echo(f"{action}: taken up by the running service; its log says what came of it")


def _change_files(site: Site, request: Request, device: str | None) -> None:
    from agent.baseline_store import apply  # noqa: PLC0415 -- heavy: numpy
    from agent.score.baseline_state import snapshot  # noqa: PLC0415

    known = False
    for name, path in _files(site, request.source):
        detector = _load(site, path)
        if apply(detector, request):
            known = True
            snapshot(detector).write(path)
            click.echo(f"{name}: {request.action}: done")
    if not known:
        raise AgentError(f"{device}: not a device that is known there")


def _address(site: Site, device: str | None) -> str | None:
    """The address of an asset tag or an address."""
    from agent.alert.endpoints import text  # noqa: PLC0415 -- heavy: numpy
    from agent.config import load_devices, parse_address  # noqa: PLC0415

    if device is None or parse_address(device) is not None:
        return device
    listed = site.config.site.devices_file if site.config else None
    for endpoint, known in (load_devices(listed) if listed else {}).items():
        if known.asset_tag == device:
            return text(endpoint)
    raise ConfigError("", f'"{device}" is no address, and no asset tag of site.devices_file')


def _named(site: Site, host: Endpoint, mac: Endpoint) -> dict[str, Any]:
    from agent.alert.endpoints import text  # noqa: PLC0415 -- heavy: numpy

    device = site.book(host) or site.book(mac)
    return {"address": text(host), "asset_tag": device.asset_tag if device else None}


def _show(whole: dict[str, Any]) -> None:
    """A summary and a table."""
    from rich.table import Table  # noqa: PLC0415 -- heavy

    from agent.alert.render import terminal  # noqa: PLC0415

    console = terminal()
    expected = whole["expected_per_day"]
    budget = f"{whole['budget_per_day']:g} a day accepted"
    told = "not known yet" if expected is None else f"{expected:g} a day expected"
    console.print(
        f"{whole['source']}: {whole['state']}, {_duration(whole['observed_s'])} observed; "
        f"{whole['n_learned_devices']} of {whole['n_devices']} devices learned "
        f"(room for {whole['max_devices']}); saved {_duration(whole['saved_ago_s'])} ago",
        highlight=False,
    )
    console.print(
        f"alarm budget: {budget}, {told}; threshold {whole['threshold']} "
        f"({'from this site' if whole['calibrated'] else 'until this site is known'}); "
        f"{whole['counters_total'].get('flagged', 0):,} rows flagged",
        highlight=False,
    )
    table = Table()
    for head in ("device", "class", "state", "known for", "seen", "peers", "ports", "packets/s"):
        table.add_column(head)
    for row in whole["devices"][:MAX_SHOWN]:
        sent = row["rates"]["out_packets_1s"]
        table.add_row(
            row["asset_tag"] or row["address"],
            row["class"] or "",
            row["state"],
            _duration(row["known_for_s"]),
            f"{_duration(row['last_seen_ago_s'])} ago",
            _many(row["n_peers"]),
            _many(row["n_ports_used"]),
            f"{sent['normal']:g} (to {sent['limit']:g})",
        )
    console.print(table)
    if len(whole["devices"]) > MAX_SHOWN:
        console.print(f"... and {len(whole['devices']) - MAX_SHOWN} more: --json", highlight=False)


def _many(n: int | None) -> str:
    return "many" if n is None else str(n)


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
