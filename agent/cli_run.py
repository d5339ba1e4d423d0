"""What `wardwatch run` does: the service; on the terminal, findings where no broker is configured."""

from pathlib import Path

import click

from agent import service
from agent.alert.render import row_of_alert, show, terminal
from agent.alert.suppression import DeviceLookup
from agent.assembly import SCHEMA_ID
from agent.config import load_config
from agent.features.schemas import SCHEMAS
from agent.records import Alert


def check(config_file: Path, *, no_model: bool) -> None:
    """Say whether the settings and every file that they name are good."""
    click.echo(service.check(config_file, no_model=no_model))


def run(config_file: Path, *, no_model: bool) -> None:
    """Serve until a signal ends it."""
    service.log_to_stderr()
    console = terminal()
    language = load_config(config_file).alert.language
    meanings = {feature.name: feature.meaning for feature in SCHEMAS[SCHEMA_ID].features}

    def on_alert(alert: Alert, wall_offset_ns: int, devices: DeviceLookup) -> None:
        row = row_of_alert(
            alert,
            devices=devices,
            features=meanings,
            language=language,
            wall_offset_ns=wall_offset_ns,
        )
        show(console, [row])

    service.serve(config_file, no_model=no_model, on_alert=on_alert)
