"""What `wardwatch bundle` does: show, verify, trust; and the detectors that `wardwatch bench` measures."""

import hashlib
import json
import re
from pathlib import Path

import click
import msgspec

from agent.config import load_config
from agent.errors import AgentError, BundleError, BundleReason, ConfigError
from agent.features.schemas import SCHEMAS
from agent.records import Detector
from agent.score.boosting import BoostingDetector
from agent.score.bundle import load_bundle, read_manifest, read_public_key, shipped_bundle_path
from agent.score.manifest import Manifest
from agent.score.rules import RulesDetector


def show_bundle(folder: Path | None, trust: tuple[Path, ...], *, as_json: bool) -> None:
    """Print the manifest of a trusted bundle; `BundleError` after it where a file is not what it says."""
    folder = folder or shipped_bundle_path()
    manifest, trusted_by = read_manifest(folder, trust=trust)
    changed = changed_files(folder, manifest)
    if as_json:
        click.echo(msgspec.json.encode(manifest))
    else:
        _show_rows(folder, manifest, trusted_by, changed)
    if changed:
        names = ", ".join(changed)
        raise BundleError(
            BundleReason.TAMPERED,
            f"{folder}: changed since it was packed: {names}: install it anew",
        )


def changed_files(folder: Path, manifest: Manifest) -> list[str]:
    """The files whose digest is not the manifest's."""
    changed = []
    for name, file in manifest.files.items():
        try:
            digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        except OSError as error:
            raise BundleError(
                BundleReason.NOT_FOUND, f"{folder / name}: {error.strerror}"
            ) from error
        if digest != file.sha256:
            changed.append(name)
    return changed


def _show_rows(folder: Path, manifest: Manifest, trusted_by: str, changed: list[str]) -> None:
    rows = {
        "bundle": manifest.id,
        "folder": str(folder),
        "trusted by": trusted_by,
        "version": str(manifest.version),
        "created": manifest.created,
        "schema": f"{manifest.schema_id} {manifest.schema_digest}, {manifest.n_features} features",
        "needs": f"wardwatch {manifest.min_agent_version} or newer",
        "kinds": ", ".join(manifest.kinds.classes[1:]),
        "size": f"{sum(file.n_bytes for file in manifest.files.values()):,} bytes",
        "digests": f"not those of the manifest: {', '.join(changed)}" if changed else "ok",
        "split": manifest.split,
        "data": _short(manifest.data),
        "metrics": _short(manifest.metrics),
        "parity": _short(manifest.parity),
    }
    for name, value in rows.items():
        click.echo(f"{name:<11} {value}")
    click.echo(f"more: {folder / 'CARD.md'}")


def verify_bundle(folder: Path | None, trust: tuple[Path, ...]) -> None:
    """Load it as a start does; raises `BundleError` where anything is wrong."""
    checked = load_bundle(folder, trust=trust, schema=SCHEMAS["ip-1"])
    click.echo(
        f"{checked.id}: good: trusted by {checked.trusted_by}, files whole, golden rows replay exactly "
        f"(scored by {checked.runtime})"
    )
    if checked.runtime_problem:
        raise BundleError(BundleReason.GOLDEN, f"onnxruntime: {checked.runtime_problem}")


def trust_key(key: Path, config_file: Path) -> None:
    """Add a public key to `bundle.trust` of the settings, which stay as they are otherwise."""
    read_public_key(key)
    config = load_config(config_file)
    key = key.resolve()
    if key in {path.resolve() for path in config.bundle.trust}:
        click.echo(f"{key} is trusted already")
        return
    text = _with_key(config_file.read_text(encoding="utf-8"), json.dumps(str(key)))
    draft = config_file.with_name(f"{config_file.name}.new")
    try:
        draft.touch(mode=0o600)
        draft.chmod(config_file.stat().st_mode & 0o7777)
        draft.write_text(text, encoding="utf-8")
        if key not in {path.resolve() for path in load_config(draft).bundle.trust}:
            raise ConfigError("bundle.trust", f"{config_file}: add {key} by hand")
        draft.replace(config_file)
    except OSError as error:
        raise AgentError(f"{config_file}: cannot be changed: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)
    click.echo(f"{key} is trusted now; restart wardwatch")


def _with_key(text: str, quoted: str) -> str:
    """The settings with one more entry in `trust`, everything else as it was."""
    section = re.search(r"(?m)^\[bundle\][^\n]*\n", text)
    if section is None:
        return f"{text.rstrip()}\n\n[bundle]\ntrust = [{quoted}]\n"
    rest = text[section.end() :]
    end = re.search(r"(?m)^\[", rest)
    body = rest[: end.start()] if end else rest
    entry = re.search(r"(?m)^trust\s*=\s*\[", body)
    if entry is None:
        return f"{text[: section.end()]}trust = [{quoted}]\n{rest}"
    at = section.end() + entry.end()
    comma = "" if re.match(r"\s*(#[^\n]*\n\s*)*\]", text[at:]) else ", "
    return f"{text[:at]}{quoted}{comma}{text[at:]}"


def bench_detectors() -> tuple[dict[str, Detector], str]:
    """The detectors to measure by name, and the id of the bundle (empty: none is shipped)."""
    detectors: dict[str, Detector] = {"rules": RulesDetector(SCHEMAS["ip-1"])}
    try:
        for runtime in ("onnx", "numpy"):
            detectors[runtime] = BoostingDetector(load_bundle(runtime=runtime))
    except BundleError as error:
        if error.reason is not BundleReason.NOT_FOUND:
            raise
        click.echo(f"wardwatch: no model is measured: {error}", err=True)
        return detectors, ""
    return detectors, load_bundle(runtime="numpy").id


def _short(table: dict[str, object]) -> str:
    """The plain entries of a table on one line."""
    plain = {k: v for k, v in table.items() if isinstance(v, str | int | float)}
    nested = [k for k in table if k not in plain]
    words = ", ".join(f"{k} {v}" for k, v in plain.items())
    return words + (f" (and {', '.join(nested)})" if nested else "")
