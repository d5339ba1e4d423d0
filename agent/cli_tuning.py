"""What `wardwatch tune` does: show, add and remove what people say about their ward, without a restart.

It writes `tuning.json` in the state folder, whole or not at all, after the same checks as a start makes; it never
changes agent.toml. A running service brings a change in within a second. Raises: `ConfigError` with the dotted path.
"""

import getpass
import json
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from agent.config import Config
    from agent.config_tuning import Entry, TuningFile

FILE = click.Path(path_type=Path, readable=False)
UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
KINDS = ("suppress", "window", "role", "approve")
ENDS = {"window": "ends"}

config_option = click.option(
    "--config", "config_file", type=FILE, required=True, help="The site's settings (TOML)."
)


def lasting(*, required: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options that end an entry, and say why and by whom."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in (
            click.option("--author", help="Default: the user who types this."),
            click.option("--reason", required=required, default="", help="Why, in words."),
            click.option("--for", "for_text", metavar="TIME", help="Ends after 30m, 12h, 30d, 4w."),
            click.option("--expires", metavar="TIME", help="Ends at 2027-01-31T00:00:00Z."),
        ):
            command = option(command)
        return command

    return add


@click.group(short_help="Say what is fine on this ward: approvals, roles, windows, suppressions.")
def tune() -> None:
    """Say what is fine on this ward. Each entry is counted when it is used; none hides without a trace.

    \b
    wardwatch tune list --config agent.toml
    wardwatch tune window patch-night --days sat,sun --hours 22:00-04:00 --zone Europe/Paris ...
    wardwatch tune role it-scanner scanner --address 10.20.0.250 --window patch-night ...
    wardwatch tune approve pump-07-updates --device PUMP-07 --peer 10.20.0.9 --port 443 ...
    wardwatch tune suppress printer --detection ping_sweep --where 10.20.0.7 --for 30d ...
    wardwatch tune remove suppress printer --config agent.toml
    """


@tune.command("list")
@config_option
@click.option("--json", "as_json", is_flag=True, help="One entry a line.")
def list_entries(config_file: Path, *, as_json: bool) -> None:
    """Show every entry: what, until when, how often it was used, when last."""
    from agent.config import load_config  # noqa: PLC0415 -- heavy
    from agent.tuning import load_tuning, load_uses, rules_of  # noqa: PLC0415

    config = load_config(config_file)
    file = load_tuning(config.site.state_dir)
    rules_of(config, file)
    uses = load_uses(config.site.state_dir)
    rows = [
        _listed(kind, entry, origin, uses.get((kind, entry.name)))
        for tables, origin in ((config, config_file.name), (file, "tune"))
        for kind in KINDS
        for entry in getattr(tables, kind)
    ]
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
        return
    if not rows:
        click.echo("wardwatch: nothing is tuned", err=True)
        return
    table = [[c.upper() for c in COLUMNS], *([_cell(row, c) for c in COLUMNS] for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(COLUMNS))]
    for line in table:
        click.echo("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip())


COLUMNS = (
    "kind",
    "name",
    "state",
    "what",
    "until",
    "verdicts",
    "findings",
    "last used",
    "from",
    "reason",
)


@tune.command("suppress")
@click.argument("name")
@click.option("--detection", required=True, help="A detection id, or '*'.")
@click.option("--where", required=True, help="Asset tag, address or subnet; attacker or victim.")
@click.option("--starts", metavar="TIME", help="Default: now.")
@click.option("--window", help="Only in this maintenance window.")
@lasting(required=True)
@config_option
def add_suppression(config_file: Path, *, name: str, **options: Any) -> None:
    """Do not tell findings of a DETECTION at a place, for a time. Their number is told in `health`."""
    _add(config_file, "suppress", name, options)


@tune.command("window")
@click.argument("name")
@click.option("--days", metavar="LIST", help="On which it begins: sat,sun. Default: each day.")
@click.option("--hours", metavar="FROM-TO", help="22:00-04:00; default: the whole day.")
@click.option("--zone", help="Time zone of days and hours, Europe/Paris. Default: UTC.")
@click.option("--starts", metavar="TIME", help="One-off, or the first time.")
@click.option("--ends", metavar="TIME", help="One-off, or the last time.")
@click.option("--reason", default="", help="Why, in words.")
@click.option("--author", help="Default: the user who types this.")
@config_option
def add_window(config_file: Path, *, name: str, **options: Any) -> None:
    """Name a time of maintenance, for roles and suppressions to keep to."""
    days = options.pop("days")
    if days is not None:
        options["days"] = [day.strip() for day in days.split(",")]
    _add(config_file, "window", name, options)


@tune.command("role")
@click.argument("name")
@click.argument("role", type=click.Choice(["scanner", "nms", "dhcp_server", "gateway"]))
@click.option("--address", required=True, help="Its IP address.")
@click.option("--mac", multiple=True, help="Its MAC address. Default: as the inventory knows it.")
@click.option("--window", help="Only in this maintenance window; a scanner needs one.")
@lasting(required=False)
@config_option
def add_role(config_file: Path, *, name: str, mac: tuple[str, ...], **options: Any) -> None:
    """Say what a machine is there to do: ROLE is scanner, nms, dhcp_server or gateway."""
    from agent.config import load_config  # noqa: PLC0415 -- heavy

    address = options["address"]
    if not mac:
        mac = _known_macs(load_config(config_file), address)
        how = (
            f"bound to {', '.join(mac)}, as the inventory knows it"
            if mac
            else (
                "the inventory does not know its MAC: whoever has the address has the role (--mac)"
            )
        )
        click.echo(f"wardwatch: {address}: {how}", err=True)
    _add(config_file, "role", name, {**options, "mac": list(mac)})


@tune.command("approve")
@click.argument("name")
@click.option("--device", required=True, help="Asset tag, address or subnet.")
@click.option("--peer", help="Whom it may speak with: the same. Default: anybody.")
@click.option("--port", type=int, multiple=True, help="On which ports. Default: any.")
@lasting(required=True)
@config_option
def add_approval(config_file: Path, *, name: str, port: tuple[int, ...], **options: Any) -> None:
    """Say that a peer, or ports, are fine for a device: they are no anomaly."""
    _add(config_file, "approve", name, {**options, "port": list(port)})


@tune.command("remove")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("name")
@config_option
def remove(config_file: Path, *, kind: str, name: str) -> None:
    """Take back what was added by command; what stands in the settings is taken out there."""
    from agent.config import load_config  # noqa: PLC0415 -- heavy
    from agent.errors import ConfigError  # noqa: PLC0415
    from agent.tuning import changing, load_tuning  # noqa: PLC0415

    config = load_config(config_file)
    with changing(config.site.state_dir):
        file = load_tuning(config.site.state_dir)
        rows = getattr(file, kind)
        kept = tuple(row for row in rows if row.name != name)
        if len(kept) == len(rows):
            there = any(row.name == name for row in getattr(config, kind))
            problem = f"stands in {config_file}; take it out there" if there else "no such entry"
            raise ConfigError(f"{kind}.{name}", problem)
        if kind == "window":
            _refuse_used(config, file, name)
        _save(config, _with(file, kind, kept))
    click.echo(f"{kind} {name}: removed")


def _add(config_file: Path, kind: str, name: str, options: dict[str, Any]) -> None:
    """Check one more entry beside all others, and keep it."""
    from agent.config import check_tree, load_config  # noqa: PLC0415 -- heavy
    from agent.config_tuning import TuningFile  # noqa: PLC0415
    from agent.errors import ConfigError  # noqa: PLC0415
    from agent.tuning import FILE as FILE_NAME  # noqa: PLC0415
    from agent.tuning import changing, load_tuning  # noqa: PLC0415

    config = load_config(config_file)
    for_text = options.pop("for_text", None)
    if for_text is not None:
        if options.get("expires") is not None:
            raise click.UsageError("--expires and --for say the same; give one")
        options["expires"] = _after(for_text)
    options["author"] = options.get("author") or os.environ.get("SUDO_USER") or getpass.getuser()
    row = {key: value for key, value in options.items() if value not in (None, "", [])}
    row["name"] = name
    try:
        checked = check_tree({kind: [row]}, TuningFile, folder=config.site.state_dir)
        _refuse_past(kind, getattr(checked, kind)[0])
        with changing(config.site.state_dir):
            file = load_tuning(config.site.state_dir)
            n_before = len(getattr(config, kind)) + len(getattr(file, kind))
            rows = (*getattr(file, kind), *getattr(checked, kind))
            changed = _with(file, kind, rows)
            _save(config, changed)
    except ConfigError as error:
        # The entry's place in a list says nothing to who typed its name.
        path = re.sub(rf"^{kind}\[\d+\]", f"{kind}.{name}", error.path)
        raise ConfigError(path, error.problem.removesuffix(f" [{FILE_NAME}]")) from error
    click.echo(f"{kind} {name}: added ({n_before + 1} in all)")


def _refuse_past(kind: str, entry: "Entry") -> None:
    from agent.errors import ConfigError  # noqa: PLC0415 -- heavy
    from agent.tuning import is_expired  # noqa: PLC0415

    if is_expired(entry, datetime.now(UTC)):
        raise ConfigError(f"{kind}[0].{ENDS.get(kind, 'expires')}", "is past: it would do nothing")


def _refuse_used(config: "Config", file: "TuningFile", window: str) -> None:
    from agent.errors import ConfigError  # noqa: PLC0415 -- heavy

    for tables in (config, file):
        for kind in ("role", "suppress"):
            for row in getattr(tables, kind):
                if row.window == window:
                    raise ConfigError(
                        f"window.{window}", f"{kind} {row.name} keeps to it; remove that first"
                    )


def _with(file: "TuningFile", kind: str, rows: "tuple[Entry, ...]") -> "TuningFile":
    import msgspec  # noqa: PLC0415 -- heavy

    return msgspec.structs.replace(file, **{kind: rows})


def _save(config: "Config", file: "TuningFile") -> None:
    from agent.tuning import rules_of, save_tuning  # noqa: PLC0415 -- heavy

    rules_of(config, file)
    save_tuning(config.site.state_dir, file)


def _after(text: str) -> str:
    match = re.fullmatch(r"([1-9][0-9]{0,4})([mhdw])", text)
    if match is None:
        raise click.BadParameter(f'"{text}": expected 30m, 12h, 30d or 4w', param_hint="--for")
    seconds = int(match[1]) * UNITS[match[2]]
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(timespec="seconds")


def _known_macs(config: "Config", address: str) -> tuple[str, ...]:
    """The MAC of the device that claims an address, as the inventory has it; none or several: nobody."""
    from agent.inventory_file import read_tree  # noqa: PLC0415 -- heavy

    try:
        tree = read_tree(config.site.state_dir)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ()
    found = [
        device["device"]
        for device in (tree or {}).get("devices", ())
        if any(held["address"] == address and held["claimed"] for held in device["addresses"])
    ]
    return tuple(found) if len(found) == 1 and found[0].count(":") == 5 else ()


def _listed(kind: str, entry: "Entry", origin: str, use: Any) -> dict[str, Any]:
    import msgspec  # noqa: PLC0415 -- heavy

    from agent.tuning import is_expired  # noqa: PLC0415

    return {
        "kind": kind,
        **msgspec.to_builtins(entry),
        "from": origin,
        "expired": is_expired(entry, datetime.now(UTC)),
        "verdicts_total": use.verdicts if use else 0,
        "findings_total": use.findings if use else 0,
        "last_used_ms": use.last_ns // 1_000_000 if use and use.last_ns else None,
    }


def _cell(row: dict[str, Any], column: str) -> str:
    if column == "state":
        return "expired" if row["expired"] else "in force"
    if column == "what":
        return WHAT[row["kind"]](row)
    if column == "until":
        return row.get("expires") or row.get("ends") or "-"
    if column == "last used":
        ms = row["last_used_ms"]
        return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%MZ}" if ms else "never"
    if column in {"verdicts", "findings"}:
        return f"{row[column + '_total']:,}"
    return str(row[column])


def _at(row: dict[str, Any]) -> str:
    return f" in {row['window']}" if row.get("window") else ""


WHAT: dict[str, Callable[[dict[str, Any]], str]] = {
    "suppress": lambda r: f"{r['detection']} at {r['where']}{_at(r)}",
    "window": lambda r: " ".join(
        filter(
            None,
            (
                ",".join(r["days"]),
                r["hours"],
                r["zone"],
                f"from {r['starts']}" if r["starts"] else "",
            ),
        )
    ),
    "role": lambda r: f"{r['role']} {r['address']} {','.join(r['mac'])}".rstrip() + _at(r),
    "approve": lambda r: (
        f"{r['device']} with {r['peer']}"
        + (f" on {','.join(map(str, r['port']))}" if r["port"] else "")
    ),
}
"""An entry in a line, by its kind."""
