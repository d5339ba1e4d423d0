"""The command `wardwatch`: parse, call, print. What a command does stands in its own file.

Exit status: 0 done · 1 error · 2 usage · 3 `--fail-on` met · 75 broker unreachable. What goes wrong is
one line on stderr that says what to do; a traceback is a bug of ours.
"""

import errno
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent import __version__
from agent.cli_baseline import baseline
from agent.cli_devices import devices
from agent.cli_tuning import tune
from agent.errors import AgentError, ConfigError
from agent.heap import keep_heap

if TYPE_CHECKING:
    from agent.uplink.mqtt import Broker

FILE = click.Path(path_type=Path, readable=False)
"""Whether it can be read is said by who reads it: one bad file of many is no wrong usage."""
SEVERITY = click.Choice(["info", "low", "medium", "high", "critical"])
LANGUAGE = click.Choice(["en", "fr"])
MAX_MQTT_TEXT = 65_535
MAX_CLIENT_ID = 200
"""Bytes; far below what MQTT allows, above what any broker's own limit is likely to be."""
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; always ends with `SystemExit`."""
    keep_heap()
    try:
        status = _call(sys.argv[1:] if arguments is None else arguments)
    except click.exceptions.Exit as end:  # --help, --version
        status = end.exit_code
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except AgentError as error:
        click.echo(f"wardwatch: {error}", err=True)
        sys.exit(error.exit_status)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        # Who read our output has gone (`| head`); nothing more can be said there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:
            raise
        # What we could not write is dropped, or the interpreter would try again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        click.echo("wardwatch: the output cannot be written: no space left on device", err=True)
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)


def _call(arguments: list[str]) -> object:
    """The command's exit status. Not `cli.main`: that hides a broken pipe."""
    with cli.make_context("wardwatch", list(arguments)) as context:
        status = cli.invoke(context)
        sys.stdout.flush()
        return status


def _topic_filter(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> str | None:
    """A filter that a broker takes (MQTT 5.0, 4.7.1)."""
    levels = (value or "").split("/")
    wild = [level for level in levels if "#" in level or "+" in level]
    if value is not None and (
        not value
        or len(value.encode()) > MAX_MQTT_TEXT
        or any(level not in {"#", "+"} for level in wild)
        or "#" in levels[:-1]
    ):
        raise click.BadParameter(
            f'"{value[:100]}": no topic filter, such as wardwatch/v1/+/icu-2/#'
        )
    return value


def _client_id(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    """An id that keeps a session: not empty, and not longer than a broker takes."""
    if value is not None and not 0 < len(value.encode()) <= MAX_CLIENT_ID:
        raise click.BadParameter(f"expected 1 to {MAX_CLIENT_ID} bytes")
    return value


@click.group(context_settings=CONTEXT)
@click.version_option(__version__, "-V", "--version", prog_name="wardwatch")
def cli() -> None:
    """Wardwatch listens to a ward's network and forwards alerts, and only alerts.

    \b
    wardwatch replay ward.pcap                   what is in a capture
    wardwatch run --config agent.toml            watch live traffic
    wardwatch alerts --broker mqtts://broker     what the security team sees
    wardwatch sources                            what can be listened on
    wardwatch devices --config agent.toml        who is on the ward
    wardwatch tune list --config agent.toml      what is fine there

    \b
    Exit status: 0 done, 1 error, 2 usage, 3 --fail-on met, 75 broker unreachable
    """


@cli.command(short_help="Watch live traffic and publish findings.")
@click.option("--config", "config_file", type=FILE, required=True, help="The settings (TOML).")
@click.option(
    "--check", is_flag=True, help="Check the settings and every file they name, then end."
)
@click.option("--no-model", is_flag=True, help="Rules only.")
def run(config_file: Path, *, check: bool, no_model: bool) -> None:
    """Watch live traffic and publish findings, until SIGTERM or Ctrl-C.

    Needs CAP_NET_RAW and nothing else. Without a broker in the settings findings are printed, kept in
    the spool, and forwarded once a broker is configured. Logs go to stderr.

    \b
    wardwatch run --config /etc/wardwatch/agent.toml
    wardwatch run --config agent.toml --check
    """
    from agent import cli_run  # noqa: PLC0415 -- heavy: numpy, sqlite, paho

    (cli_run.check if check else cli_run.run)(config_file, no_model=no_model)


@cli.command(short_help="Find attacks in capture files.")
@click.argument("files", type=FILE, nargs=-1, required=True, metavar="FILE...")
@click.option("--json", "as_json", is_flag=True, help="One finding event a line on stdout.")
@click.option("--bundle", type=FILE, metavar="DIR", help="Score with this model bundle.")
@click.option("--trust", type=FILE, multiple=True, help="Public key (PEM) whose bundles to trust.")
@click.option("--no-model", is_flag=True, help="Rules only.")
@click.option("--broker", metavar="URL", help="Publish the findings, too (mqtt:// or mqtts://).")
@click.option("--ca", type=FILE, help="PEM file of the broker's certificate authority.")
@click.option("--cert", type=FILE, help="Client certificate (PEM).")
@click.option("--key", type=FILE, help="Key of the client certificate (PEM).")
@click.option("--user-file", type=FILE, help="User name and password for the broker, a line each.")
@click.option("--fail-on", type=SEVERITY, help="Exit with 3 if a finding is at least this severe.")
@click.option("--merge", is_flag=True, help="One run over all files, interleaved by time.")
@click.option("--close", is_flag=True, help="Close what is still open at the end of a file.")
@click.option(
    "--config", "config_file", type=FILE, help="Settings of a site: key, devices, alerts."
)
@click.option("--raw-addresses", is_flag=True, help="Addresses beside pseudonyms in the events.")
@click.option("--language", type=LANGUAGE, help="Of the findings. Default: the settings', else en.")
@click.option(
    "--baseline", "baseline_file", type=FILE, help="Judge by this baseline, too; it learns nothing."
)
def replay(  # noqa: PLR0913 -- one parameter an option
    files: tuple[Path, ...],
    *,
    as_json: bool,
    bundle: Path | None,
    trust: tuple[Path, ...],
    no_model: bool,
    broker: str | None,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
    user_file: Path | None,
    fail_on: str | None,
    merge: bool,
    close: bool,
    config_file: Path | None,
    raw_addresses: bool,
    language: str | None,
    baseline_file: Path | None,
) -> int:
    """Find attacks in capture files: pcap, pcapng, or gzip of either.

    Each file is a run of its own. A file that was cut is read as far as it is whole, with a warning;
    one that cannot be read at all is named, the others are read, and the exit status is 1.

    \b
    wardwatch replay ward.pcap                       findings in words
    wardwatch replay ward.pcap --json | jq .message  for machines
    wardwatch replay *.pcap.gz --fail-on high        for scripts: exit status 3
    wardwatch replay rx.pcap tx.pcap --merge         two halves of one link
    """
    if no_model and (bundle or trust):
        raise click.UsageError("--no-model leaves nothing for --bundle and --trust to say")
    from agent.cli_replay import Options  # noqa: PLC0415 -- heavy: numpy
    from agent.cli_replay import replay as replay_files  # noqa: PLC0415
    from agent.config import load_config  # noqa: PLC0415

    return replay_files(
        Options(
            files=files,
            as_json=as_json,
            bundle=bundle,
            trust=trust,
            no_model=no_model,
            broker=_broker(
                broker, "wardwatch-replay", ca=ca, cert=cert, key=key, user_file=user_file
            )
            if broker is not None
            else None,
            fail_on=fail_on,
            merge=merge,
            close=close,
            config=load_config(config_file) if config_file else None,
            raw_addresses=raw_addresses,
            language=language,
            baseline=baseline_file,
        )
    )


@cli.command(short_help="Show findings as they arrive at a broker.")
@click.option("--broker", metavar="URL", required=True, help="mqtt://HOST or mqtts://HOST.")
@click.option("--json", "as_json", is_flag=True, help="One finding event a line on stdout.")
@click.option("--ca", type=FILE, help="PEM file of the broker's certificate authority.")
@click.option("--cert", type=FILE, help="Client certificate (PEM).")
@click.option("--key", type=FILE, help="Key of the client certificate (PEM).")
@click.option("--user-file", type=FILE, help="User name and password, a line each.")
@click.option(
    "--topic",
    metavar="FILTER",
    callback=_topic_filter,
    help="Default: wardwatch/v1/+/+/+/alert/#.",
)
@click.option(
    "--client-id", callback=_client_id, help="Default: wardwatch-alerts. Each viewer needs its own."
)
@click.option("--count", type=click.IntRange(min=1), help="End after so many events.")
@click.option(
    "--for", "for_s", type=click.FloatRange(min=0), metavar="SECONDS", help="End after this time."
)
@click.option(
    "--summary", is_flag=True, help="At the end, a table of the findings (--json: stderr)."
)
@click.option(
    "--state", type=FILE, help="Remember what has come, so that gaps over a restart show."
)
@click.option(
    "--language", type=LANGUAGE, help="Say it in this one. Default: as the gateway wrote."
)
def alerts(  # noqa: PLR0913 -- one parameter an option
    broker: str,
    *,
    as_json: bool,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
    user_file: Path | None,
    topic: str | None,
    client_id: str | None,
    count: int | None,
    for_s: float | None,
    summary: bool,
    state: Path | None,
    language: str | None,
) -> None:
    """Show findings as they arrive at the broker: the security team's view.

    What came while it was not running is shown first (the broker keeps it for 7 days). Events that are
    missing from a gateway's numbering are reported on stderr.

    \b
    wardwatch alerts --broker mqtts://broker.example --ca ca.pem --user-file me.user
    wardwatch alerts --broker mqtt://127.0.0.1 --json --count 10
    wardwatch alerts --broker mqtt://127.0.0.1 --summary --state ~/.wardwatch-alerts
    """
    from agent.cli_alerts import CLIENT_ID, View, watch  # noqa: PLC0415 -- heavy: paho

    address = _broker(
        broker, client_id or CLIENT_ID, ca=ca, cert=cert, key=key, user_file=user_file
    )
    view = View(as_json=as_json, summary=summary, state=state, language=language)
    watch(address, view, topic_filter=topic, count=count, for_s=for_s)


@cli.command(short_help="List what can be listened on.")
@click.option("--json", "as_json", is_flag=True, help="One interface a line.")
def sources(*, as_json: bool) -> None:
    """List what can be listened on: name, link type, state, bridge, and whether we may.

    A port of a bridge sees part of the traffic; listen on the bridge to see each frame once.

    \b
    wardwatch sources
    wardwatch sources --json | jq -r .interface
    """
    from agent.cli_sources import print_sources  # noqa: PLC0415 -- heavy: numpy

    print_sources(as_json=as_json)


@cli.group(short_help="Show, check and trust model bundles.")
def bundle() -> None:
    """Model bundles: what they are, whether they are whole, whom this site trusts.

    \b
    wardwatch bundle show                                       the shipped one
    wardwatch bundle verify FOLDER --trust ward.pub             as a start does
    wardwatch bundle trust ward.pub --config agent.toml         from now on
    """


@bundle.command("show")
@click.argument("folder", type=FILE, required=False)
@click.option("--trust", type=FILE, multiple=True, help="Public key (PEM) to trust.")
@click.option("--json", "as_json", is_flag=True, help="The manifest, on one line.")
def bundle_show(folder: Path | None, *, trust: tuple[Path, ...], as_json: bool) -> None:
    """Print what a bundle was trained on and how it did. Default: the shipped one."""
    from agent.cli_bundle import show_bundle  # noqa: PLC0415 -- heavy: numpy

    show_bundle(folder, trust, as_json=as_json)


@bundle.command("verify")
@click.argument("folder", type=FILE, required=False)
@click.option("--trust", type=FILE, multiple=True, help="Public key (PEM) to trust.")
def bundle_verify(folder: Path | None, *, trust: tuple[Path, ...]) -> None:
    """Check signature, digests, graphs and golden rows as a start does. Default: the shipped one."""
    from agent.cli_bundle import verify_bundle  # noqa: PLC0415 -- heavy: numpy, onnxruntime

    verify_bundle(folder, trust)


@bundle.command("trust")
@click.argument("key", type=FILE)
@click.option("--config", "config_file", type=FILE, required=True, help="The site's settings.")
def bundle_trust(key: Path, config_file: Path) -> None:
    """Trust bundles that are signed with KEY (Ed25519 public key, PEM): add it to the settings."""
    from agent.cli_bundle import trust_key  # noqa: PLC0415 -- heavy: cryptography

    trust_key(key, config_file)


@cli.command(short_help="Measure speed and memory here.")
@click.option("--frames", type=click.IntRange(min=10_000), default=1_000_000, show_default=True)
@click.option(
    "--json", "as_json", is_flag=True, help="JSON lines on stdout and nothing else there."
)
@click.option("--page", type=FILE, help="Write the table to this Markdown file, too.")
def bench(frames: int, *, as_json: bool, page: Path | None) -> None:
    """Measure speed and memory on this machine; a table, or one JSON line a figure.

    \b
    wardwatch bench                    a table
    wardwatch bench --json > a.jsonl   for machines
    wardwatch bench --frames 100000    shorter
    """
    from agent.cli_bundle import bench_detectors  # noqa: PLC0415 -- heavy: onnxruntime

    try:
        from agent.bench.run import main as bench_main  # noqa: PLC0415 -- heavy
    except ImportError as error:
        raise AgentError(f"bench: {error.name} is missing; see `make setup`") from error

    detectors, name = bench_detectors()
    bench_main(n_frames=frames, detectors=detectors, bundle=name, json_only=as_json, page=page)


cli.add_command(baseline)
cli.add_command(devices)
cli.add_command(tune)


def _broker(
    url: str,
    client_id: str,
    *,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
    user_file: Path | None,
) -> "Broker":
    """The broker of the options; a usage error where they do not fit together."""
    from agent.assembly import make_broker  # noqa: PLC0415 -- heavy: numpy, paho
    from agent.config import Uplink  # noqa: PLC0415

    try:
        return make_broker(
            Uplink(url=url, ca=ca, cert=cert, key=key, user_file=user_file), client_id
        )
    except ConfigError as error:
        problem = re.sub(r"uplink\.\w+", lambda m: _option(m[0]), error.problem)
        raise click.BadParameter(problem, param_hint=_option(error.path)) from error


def _option(key: str) -> str:
    """The option that says what a key of `[uplink]` says in the settings."""
    name = key.rpartition(".")[2]
    return "--broker" if name == "url" else "--" + name.replace("_", "-")


if __name__ == "__main__":
    main()
