"""What `wardwatch devices` does: the inventory of this gateway, or of captures, for people and for machines.

Local only: it prints raw addresses, which leave this gateway by no other way. It asks nobody for a vendor: it reads
the IEEE's lists where Debian's package `ieee-data` is installed. Raises: `ConfigError`, `CaptureError`.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from agent.records import Device, Endpoint

FILE = click.Path(path_type=Path, readable=False)
COLUMNS = (
    "device",
    "asset",
    "class",
    "criticality",
    "vendor",
    "first seen",
    "last seen",
    "addresses",
    "speaks",
    "serves",
)
SERVICES = {
    21: "ftp", 22: "ssh", 23: "telnet", 53: "domain", 80: "http", 104: "acr-nema", 443: "https", 445: "microsoft-ds",
    502: "mbap", 1883: "mqtt", 2575: "hl7", 2762: "dicom-tls", 3389: "ms-wbt-server", 8883: "secure-mqtt",
    11112: "dicom",
}  # fmt: skip
"""Names of ports as IANA registers them: what a port is for, not what was spoken there."""


@click.command("devices", short_help="List the devices that were seen.")
@click.argument("files", type=FILE, nargs=-1, metavar="[FILE]...")
@click.option(
    "--config",
    "config_file",
    type=FILE,
    help="The settings: where the inventory is, and the site file.",
)
@click.option("--json", "as_json", is_flag=True, help="One device a line.")
def devices(files: tuple[Path, ...], *, config_file: Path | None, as_json: bool) -> None:
    """List the devices that a gateway has seen, or those in capture FILEs.

    A device counts once it was answered, or has kept an address by ARP for a minute. The list of a running
    gateway is up to ten minutes old. It holds raw addresses: it stays on this machine.

    \b
    wardwatch devices --config /etc/wardwatch/agent.toml
    wardwatch devices --config agent.toml --json | jq -r .vendor
    wardwatch devices ward.pcap
    """
    from agent.config import load_config, load_devices  # noqa: PLC0415 -- heavy
    from agent.inventory.vendors import Vendors  # noqa: PLC0415

    if not files and config_file is None:
        raise click.UsageError("give --config (a gateway's inventory), or capture files")
    config = load_config(config_file) if config_file else None
    known = load_devices(config.site.devices_file) if config and config.site.devices_file else {}
    tree = _of_captures(files) if files else _of_gateway(config_file, config)
    vendors = Vendors()
    rows = [_row(device, known, vendors) for device in tree["devices"]]
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
    else:
        table = [[c.upper() for c in COLUMNS], *([_cell(row, c) for c in COLUMNS] for row in rows)]
        widths = [max(len(line[i]) for line in table) for i in range(len(COLUMNS))]
        for line in table:
            click.echo("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip())
    if vendors.problem:
        click.echo(f"wardwatch: {vendors.problem}", err=True)
    gone = tree.get("counters", {}).get("evicted_devices", 0)
    if gone:
        click.echo(f"wardwatch: {gone} devices did not fit and are left out", err=True)


def _of_gateway(config_file: Path | None, config: Any) -> dict[str, Any]:
    from agent.errors import ConfigError  # noqa: PLC0415 -- heavy
    from agent.inventory_file import FILE as NAME  # noqa: PLC0415
    from agent.inventory_file import read_tree  # noqa: PLC0415

    path = config.site.state_dir / NAME
    try:
        tree = read_tree(config.site.state_dir)
    except OSError as error:
        raise ConfigError("site.state_dir", f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError("", f"{path}: no inventory: the next start sets it aside") from error
    if tree is None:
        raise ConfigError("", f"{path}: no inventory yet; wardwatch run --config {config_file}")
    return tree


def _of_captures(files: tuple[Path, ...]) -> dict[str, Any]:
    """All files as one network."""
    from agent.capture.capture_file import open_capture  # noqa: PLC0415 -- heavy
    from agent.decode.decoder import PacketDecoder  # noqa: PLC0415
    from agent.inventory.sightings import Sightings  # noqa: PLC0415
    from agent.inventory_file import tree_of  # noqa: PLC0415

    sightings = Sightings()
    for file in files:
        decoder = PacketDecoder(salt=0)
        with open_capture(file) as capture:
            for batch in capture:
                sightings.add(decoder.decode(batch))
            if capture.truncated:
                click.echo(
                    f"wardwatch: {file}: {capture.truncated}; what is whole was read", err=True
                )
    return tree_of(sightings, wall_offset_ns=0)


def _row(device: dict[str, Any], known: "dict[Endpoint, Device]", vendors: Any) -> dict[str, Any]:
    """One device with what the site and the IEEE say of it."""
    from agent.alert.endpoints import is_mac, parse  # noqa: PLC0415 -- heavy
    from agent.inventory.vendors import is_local  # noqa: PLC0415

    key = parse(device["device"])
    keys = [key, *(parse(held["address"]) for held in device["addresses"])]
    listed = next((known[k] for k in keys if k in known), None)
    mac = key.lo if is_mac(key) else None
    return {
        **device,
        "asset_tag": listed.asset_tag if listed else None,
        "class": listed.device_class if listed else None,
        "criticality": listed.criticality if listed else None,
        "vendor": vendors.of(mac) if mac is not None else "",
        "locally_administered": is_local(mac) if mac is not None else None,
    }


def _cell(row: dict[str, Any], column: str) -> str:
    if column in {"first seen", "last seen"}:
        ms = row[column.replace(" ", "_") + "_ms"]
        return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%SZ}"
    if column == "asset":
        return row["asset_tag"] or "-"
    if column == "addresses":
        held = [each["address"] for each in reversed(row["addresses"])]
        return ",".join(held) + (" (router)" if row["router"] else "") or "-"
    if column == "speaks":
        return ",".join(row["protocols"]) or "-"
    if column == "serves":
        ports = row["serves_tcp_ports"]
        return ",".join(f"{p} ({SERVICES[p]})" if p in SERVICES else str(p) for p in ports) or "-"
    return row[column] or "-"
