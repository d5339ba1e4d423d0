"""`wardwatch-convert`: from captures with labels to a bundle. Parse, call, print; nothing is decided here.

Steps, each reading what the one before left in the work folder:

    dataset CAPTURES OUT   leaks DATA   train DATA   quantize DATA   evaluate DATA   pack

Exit status: 0 done, 1 error (one line on stderr), 2 usage.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np

from agent import __version__
from agent.errors import AgentError
from converter.estimators import help_text

ROOT = Path(__file__).resolve().parent.parent
"""The checkout, or where the package is installed."""

WORK = Path("var/model")


def _one_line(command: Callable[..., None]) -> Callable[..., None]:
    """An error that we raise on purpose is one line and its status."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except AgentError as error:
            click.echo(f"wardwatch-convert: {error}", err=True)
            sys.exit(error.exit_status)

    return run


def _tell(line: str) -> None:
    click.echo(line, err=True)


work_option = click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=WORK,
    show_default=True,
    help="Folder in which the steps leave their results for each other.",
)
data_argument = click.argument("data", type=click.Path(path_type=Path))


@click.group()
@click.version_option(__version__)
def main() -> None:
    """Train Wardwatch's models and pack them as bundles. Runs on a workstation, never on a gateway."""


@main.command()
@click.argument("captures", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@_one_line
def dataset(captures: Path, out: Path) -> None:
    """Turn labelled recordings of folder CAPTURES into feature matrices in folder OUT."""
    from converter.dataset import build_all  # noqa: PLC0415  each step imports only what it needs

    written = build_all(captures, out, _tell)
    _tell(f"{written} matrices written to {out}")


@main.command()
@data_argument
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object a line: every feature, the control."
)
@_one_line
def leaks(data: Path, *, as_json: bool) -> None:
    """Look for what the features of DATA tell that they should not: the run, the recording.

    Only at the runs that training sees. Status 1 where a feature tells runs apart and `converter/leaks.toml` has no
    reason for it, or where labels permuted between runs can still be learnt.
    """
    from rich.console import Console  # noqa: PLC0415

    from converter.dataset import is_held_out, load_all  # noqa: PLC0415
    from converter.leaks_report import (  # noqa: PLC0415
        leak_lines,
        leak_report,
        leak_table,
        leak_words,
        problems,
        read_reasons,
    )
    from converter.learners import Settings  # noqa: PLC0415

    settings = Settings()
    runs = [r for r in load_all(data) if not is_held_out(r.info.plan, settings.test_plans)]
    report = leak_report(runs, settings, read_reasons())
    if as_json:
        for raw in leak_lines(report):
            click.echo(raw)
    else:
        Console(width=130).print(leak_table(report))
        for line in leak_words(report):
            click.echo(line)
    if found := problems(report):
        raise AgentError(f"{len(found)} problems with the data: {found[0]}")


@main.command(epilog=f"\b\nLearners that can become a bundle:\n{help_text()}")
@data_argument
@work_option
@click.option("--settings", type=click.Path(path_type=Path, exists=True), help="JSON of settings.")
@_one_line
def train(data: Path, work: Path, settings: Path | None) -> None:
    """Train the gate and the kinds on the matrices of folder DATA, split by run."""
    from converter.dataset import folder_digest, load_all  # noqa: PLC0415
    from converter.learners import Settings  # noqa: PLC0415
    from converter.train import train as train_model  # noqa: PLC0415
    from converter.work import save_float  # noqa: PLC0415

    chosen = Settings()
    if settings is not None:
        try:
            chosen = msgspec.json.decode(settings.read_bytes(), type=Settings)
        except msgspec.DecodeError as error:
            raise AgentError(f"{settings}: {error}") from None
    model = train_model(load_all(data), chosen, data_digest=folder_digest(data), tell=_tell)
    save_float(work, model)


@main.command()
@data_argument
@work_option
@click.option("--leaf-bits", type=click.Choice(["8", "16"]), default="16", show_default=True)
@_one_line
def quantize(data: Path, work: Path, leaf_bits: str) -> None:
    """Make integers of the trained trees, and prove on the matrices of DATA that they decide alike."""
    from converter.dataset import load_all  # noqa: PLC0415
    from converter.prove_model import quantize_model  # noqa: PLC0415
    from converter.work import load_float, save_latency, save_quantised  # noqa: PLC0415

    model = load_float(work)
    runs = _held_out(load_all(data), model.record.settings)
    rows = np.concatenate([run.matrix.values for run in runs])
    quantised, latency = quantize_model(model, rows, leaf_bits=int(leaf_bits))
    save_quantised(work, quantised)
    save_latency(work, latency)
    for name, proof in quantised.parity.items():
        _tell(
            f"{name}: labels agree on {proof['label_agreement']:.4%} of {proof['n_rows']} rows, "
            f"{proof['size_ratio']:.2f} of the float32 arrays"
        )


@main.command()
@data_argument
@work_option
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    default=None,
    help="Folder for model.md and model.json; of a study, leave-out-WHAT.md and .json.",
)
@click.option(
    "--leave-out",
    "what",
    type=click.Choice(["tool", "variant", "ward", "kind"]),
    help="Instead: train small models without each tool, variant, ward or kind, and see what is found.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="WORD",
    help="With --leave-out: only parts whose name (kind/variant, kind/tool, run, kind) contains it. Repeatable.",
)
@_one_line
def evaluate(
    data: Path, work: Path, results: Path | None, what: str | None, only: tuple[str, ...]
) -> None:
    """Judge the model on the held-out runs of DATA: findings first, then rows; float and quantised."""
    if what is not None:
        _leave_out(data, results, what, only)
        return
    if only:
        raise click.UsageError("--only goes with --leave-out")
    from converter.dataset import load_all  # noqa: PLC0415
    from converter.evaluate import evaluate as evaluate_model  # noqa: PLC0415
    from converter.evaluate import summary  # noqa: PLC0415
    from converter.parity import check_metrics  # noqa: PLC0415
    from converter.report import report_text  # noqa: PLC0415
    from converter.work import (  # noqa: PLC0415
        load_float,
        load_latency,
        load_quantised,
        save_metrics,
    )

    model, quantised = load_float(work), load_quantised(work)
    runs = _held_out(load_all(data), model.record.settings)
    figures = evaluate_model(model, quantised, runs, seed=model.record.settings["seed"])
    brief = summary(figures)
    rates = ("macro_f1", "false_row_rate", "hostile_row_recall")
    check_metrics(*({name: brief[side][name] for name in rates} for side in ("float", "quantised")))
    save_metrics(work, brief)
    about = {
        "command": f"wardwatch-convert evaluate {data}",
        "commit": _commit(),
        "matrices": str(model.record.data["matrices_sha256_16"]),
        "trained on": f"{model.record.data['runs']} runs, {model.record.data['rows']} rows",
    }
    text = report_text(figures, quantised.parity, load_latency(work), about=about)
    if results is not None:
        results.mkdir(parents=True, exist_ok=True)
        (results / "model.md").write_text(text, encoding="utf-8")
        raw = msgspec.json.encode(
            {"about": about, "figures": figures, "parity": quantised.parity}, order="sorted"
        )
        (results / "model.json").write_bytes(msgspec.json.format(raw, indent=1) + b"\n")
    click.echo(text)


@main.command()
@work_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("models"),
    show_default=True,
    help="Folder of bundles.",
)
@click.option("--created", required=True, metavar="YYYY-MM-DD", help="Date that the bundle bears.")
@click.option(
    "--bundle-version",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Grows with every release.",
)
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    help="Ed25519 private key (PEM) to sign with; it is only read.",
)
@click.option(
    "--shipped",
    is_flag=True,
    help="Make it the bundle that this checkout ships: writes its digest into the code.",
)
@_one_line
def pack(
    work: Path, out: Path, created: str, bundle_version: int, key: Path | None, *, shipped: bool
) -> None:
    """Write the bundle: a folder that the agent loads. Sign it with --key for a site."""
    from converter.pack import pack as pack_bundle  # noqa: PLC0415
    from converter.pack import read_private_key, shipped_source  # noqa: PLC0415
    from converter.work import load_float, load_metrics, load_quantised  # noqa: PLC0415

    place = pack_bundle(
        out,
        load_float(work),
        load_quantised(work),
        metrics=load_metrics(work),
        created=created,
        version=bundle_version,
        key=None if key is None else read_private_key(key),
    )
    if shipped:
        (ROOT / "agent" / "score" / "shipped.py").write_text(
            shipped_source(place), encoding="utf-8"
        )
    click.echo(str(place))


@main.command()
@data_argument
@click.option("--json", "as_json", is_flag=True, help="JSON lines on stdout and nothing else.")
@click.option("--page", type=click.Path(path_type=Path), help="Write the table there, too.")
@_one_line
def bench(data: Path, *, as_json: bool, page: Path | None) -> None:
    """Measure the shipped model on rows of the held-out matrices in DATA: float, quantised, numpy."""
    from agent.bench.run import show  # noqa: PLC0415
    from agent.score.bundle import load_bundle  # noqa: PLC0415
    from converter.bench import bench as figures  # noqa: PLC0415
    from converter.dataset import load_all  # noqa: PLC0415
    from converter.learners import Settings  # noqa: PLC0415

    runs = _held_out(load_all(data), msgspec.to_builtins(Settings()))
    rows = np.concatenate([run.matrix.values for run in runs])
    command = f"wardwatch-convert bench {data}"
    bundle = load_bundle(runtime="numpy").id
    show(figures(rows), command=command, bundle=bundle, json_only=as_json, page=page)


@main.command()
@click.argument("results", type=click.Path(path_type=Path), default=Path("docs/results"))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("var/report"),
    show_default=True,
    help="Folder for report.html and CARD.md.",
)
@click.option(
    "--bundle", type=click.Path(path_type=Path), help="Whose card; default: the shipped one."
)
@_one_line
def report(results: Path, out: Path, bundle: Path | None) -> None:
    """Write what `evaluate` left in folder RESULTS as one HTML page with plots, and the bundle's CARD.md."""
    from agent.score.bundle import shipped_bundle_path  # noqa: PLC0415
    from converter.html_report import html_page  # noqa: PLC0415

    card_file = (bundle or shipped_bundle_path()) / "CARD.md"
    try:
        card = card_file.read_text(encoding="utf-8")
    except OSError as error:
        raise AgentError(f"{card_file}: {error.strerror}: not a bundle's folder?") from None
    page = html_page(results, card)
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.html").write_text(page, encoding="utf-8")
    (out / "CARD.md").write_text(card, encoding="utf-8")
    click.echo(out / "report.html")


def _leave_out(data: Path, results: Path | None, what: str, only: tuple[str, ...]) -> None:
    """One study of what was left out; needs matrices, no work folder."""
    from converter.baseline import learned_baseline  # noqa: PLC0415
    from converter.dataset import folder_digest, is_held_out, load_all  # noqa: PLC0415
    from converter.learners import Settings  # noqa: PLC0415
    from converter.leave_out import leave_out  # noqa: PLC0415
    from converter.report_studies import study_text  # noqa: PLC0415

    digest = folder_digest(data)  # before the study: nobody waits with recording until it ends
    runs, settings, baseline = load_all(data), Settings(), None
    if what == "kind":
        _tell("the baseline learns the training wards")
        kept = [r for r in runs if not is_held_out(r.info.plan, settings.test_plans)]
        baseline = learned_baseline(kept, data)
    figures = leave_out(runs, settings, what, only=only, tell=_tell, baseline=baseline)
    words = [
        f"wardwatch-convert evaluate {data} --leave-out {what}",
        *(f"--only {w}" for w in only),
    ]
    about = {"command": " ".join(words), "commit": _commit(), "matrices": digest}
    text = study_text(figures, about=about)
    if results is not None:
        results.mkdir(parents=True, exist_ok=True)
        (results / f"leave-out-{what}.md").write_text(text, encoding="utf-8")
        raw = msgspec.json.encode({"about": about, "figures": figures}, order="sorted")
        place = results / f"leave-out-{what}.json"
        place.write_bytes(msgspec.json.format(raw, indent=1) + b"\n")
    click.echo(text)


def _held_out(runs: list[Any], settings: dict[str, Any]) -> list[Any]:
    """The runs of the test plans."""
    from converter.dataset import is_held_out  # noqa: PLC0415

    found = [run for run in runs if is_held_out(run.info.plan, settings["test_plans"])]
    if not found:
        plans = ", ".join(settings["test_plans"])
        raise AgentError(f"no run of a held-out plan ({plans}) among the matrices: record some")
    return found


def _commit() -> str:
    """The commit of the checkout, `-dirty` with changes; `unknown` outside of one."""
    done = subprocess.run(  # noqa: S603  our own words only
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"],  # noqa: S607  from PATH
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


def _mount() -> None:
    """The testbed's commands, beside ours."""
    from converter.testbed.cli import testbed  # noqa: PLC0415

    main.add_command(testbed)


_mount()
