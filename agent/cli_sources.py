"""What `wardwatch sources` does: the interfaces of this machine, and whether we may listen on them."""

import json
import socket
from pathlib import Path

import click

from agent.capture.packet_socket import bridge_of, find_interface, open_packet_socket
from agent.errors import CaptureError

COLUMNS = ("interface", "link", "state", "bridge", "remark")


def list_sources() -> tuple[list[dict[str, str]], str]:
    """One row an interface; and why we may not listen (empty: we may). Sends nothing, binds nothing."""
    try:
        sock, _ = open_packet_socket(ignore_outgoing=True)
        sock.close()
        denied = ""
    except CaptureError as error:
        denied = str(error)
    rows = []
    for _, name in socket.if_nameindex():
        link, state, remark = "", "up", ""
        try:
            link = find_interface(name).link_type.name.lower()
        except CaptureError as error:
            state, remark = str(error.reason), str(error)
        bridge = bridge_of(name) or ""
        if bridge:
            remark = f"a port: listen on {bridge} to see each frame once"
        elif Path(f"/sys/class/net/{name}/bridge").is_dir():
            bridge, remark = name, "a bridge: sees all its ports"
        rows.append(
            {"interface": name, "link": link, "state": state, "bridge": bridge, "remark": remark}
        )
    return rows, denied


def print_sources(*, as_json: bool) -> None:
    """A table, or one JSON object a line; the missing permission on stderr."""
    rows, denied = list_sources()
    if as_json:
        for row in rows:
            click.echo(json.dumps({**row, "permitted": not denied}))
    else:
        widths = {c: max(len(c), *(len(row[c]) for row in rows)) for c in COLUMNS}
        for row in [{c: c.upper() for c in COLUMNS}, *rows]:
            click.echo("  ".join(row[c].ljust(widths[c]) for c in COLUMNS).rstrip())
    if denied:
        click.echo(f"wardwatch: {denied}", err=True)
