"""The ledger of quiet wards: hours of hard benign traffic, and what the agent said of them, one JSON line a run.

Captures are not kept for ever; the ledger is, so that gateway-hours add up over sessions. Each capture goes through
the agent's own replay twice: as it comes out of the box (`default`), and with the roles and windows that the site
would have set (`site`, from the manifest's `roles`). Every finding is false here: nobody attacks. A line keeps what
each bundle said; the same run under another bundle adds to it, never replaces another's.

In: recorded folders (`campaign`), a ledger file. Out: the file, rewritten whole. Raises: `TestbedError` for what is
no quiet run, `AgentError` of the replay. Remembers: nothing.
"""

import datetime as dt
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from agent.alert.severity import SEVERITIES
from agent.assembly import make_site, make_watch
from agent.config import Config, parse_config
from agent.records import Alert
from agent.replay import Report, replay_file
from converter.figures import poisson
from converter.testbed.namespaces import TestbedError

LOW = SEVERITIES.index("low")
_BEFORE_S, _AFTER_S = 30, 90
"""A maintenance window is set wider than the scan; a minute's horizon still sees it afterwards."""


class Findings(msgspec.Struct, kw_only=True):
    """What one bundle said of one run."""

    bundle: str
    """Its id; `rules` where no model was loaded."""
    config: str
    """`default`, or `site`: with the manifest's roles."""
    counts: dict[str, dict[str, int]]
    """Findings by highest severity, then by kind."""
    told: list[dict[str, object]]
    """Those above low: kind, severity, seconds after the capture's start, the benign event begun last before."""


class Line(msgspec.Struct, kw_only=True):
    """One run of the ledger."""

    run: str
    plan: str
    seed: int
    plan_digest: str
    """Of the run as it was drawn (`RunSpec.digest`)."""
    capture_sha256: str
    recorded: str
    """UTC, the day and minute of the first frame."""
    hours: float
    """Gateway-hours: from the capture's first frame to its last."""
    frames: int
    devices: dict[str, int]
    """Simulated devices by kind."""
    events: dict[str, int]
    """Benign events that happened, by name."""
    findings: list[Findings] = []


def read_ledger(path: Path) -> list[Line]:
    """The lines of a ledger; none where there is no file yet. Raises `TestbedError`."""
    if not path.exists():
        return []
    try:
        text = path.read_bytes().splitlines()
        return [msgspec.json.decode(line, type=Line) for line in text if line.strip()]
    except (OSError, msgspec.DecodeError) as e:
        raise TestbedError(f"{path}: not a ledger: {e}") from e


def write_ledger(path: Path, lines: list[Line]) -> None:
    """All lines, in order of recording; written whole, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ordered = sorted(lines, key=lambda line: (line.recorded, line.run))
    temporary = path.with_suffix(".part")
    temporary.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in ordered))
    temporary.rename(path)


def site_config(manifest: dict[str, Any]) -> Config:
    """The site's settings as its people would have written them: who scans and when, who manages, who routes."""
    text = ['[site]\nname = "testbed"\nward = "quiet"\ngateway = "bridge"\n']
    for role, hosts in manifest["roles"].items():
        if role not in {"scanner", "nms", "dhcp_server", "gateway"}:
            continue
        for host in hosts:
            windows = host.get("windows", [None])
            for i, window in enumerate(windows):
                name = f"{role}-{host['host']}-{i}"
                text.append(
                    f'[[role]]\nname = "{name}"\nrole = "{role}"\naddress = "{host["ip"]}"\n'
                    f'mac = ["{host["mac"]}"]\n'
                )
                if window is not None:
                    text.append(f'window = "{name}"\n' + _window(name, *window))
    return parse_config("\n".join(text), folder=Path())


def _window(name: str, begin_ns: int, end_ns: int) -> str:
    begin = dt.datetime.fromtimestamp(begin_ns // 10**9 - _BEFORE_S, dt.UTC)
    end = dt.datetime.fromtimestamp(end_ns // 10**9 + _AFTER_S, dt.UTC)
    return f'[[window]]\nname = "{name}"\nstarts = {begin.isoformat()}\nends = {end.isoformat()}\n'


def count_run(
    folder: Path, manifest: dict[str, Any], known: Line | None, *, bundle: Path | None
) -> Line:
    """A run's line, with what this bundle says of it added to what is `known`."""
    if manifest["episodes"]:
        raise TestbedError(f"{manifest['run']}: attacks happened there; a ledger is of quiet runs")
    pcap = folder / f"{manifest['run']}.pcap"
    said, report = [], None
    for name, config in (("default", None), ("site", site_config(manifest))):
        report, findings = _replay(pcap, manifest, config, name, bundle)
        said.append(findings)
    assert report is not None
    new = {(f.bundle, f.config) for f in said}
    kept = known.findings if known is not None else []
    profiles = [
        h["profile"] for h in manifest["ward"]["hosts"] if h["role"] in {"device", "remote"}
    ]
    return Line(
        run=manifest["run"],
        plan=manifest["plan"],
        seed=manifest["seed"],
        plan_digest=manifest["spec_digest"],
        capture_sha256=manifest["sha256"],
        recorded=dt.datetime.fromtimestamp((report.first_ns or 0) // 10**9, dt.UTC).strftime(
            "%Y-%m-%dT%H:%MZ"
        ),
        hours=round(report.duration_s / 3600, 4),
        frames=report.n_frames,
        devices=dict(sorted(Counter(profiles).items())),
        events=dict(sorted(Counter(h["step"]["name"] for h in manifest["happened"]).items())),
        findings=[f for f in kept if (f.bundle, f.config) not in new] + said,
    )


def count_folder(
    folder: Path, ledger: Path, *, bundle: Path | None, again: bool, say: Callable[[str], None]
) -> None:
    """Count every quiet run of a folder; the ledger is written after each, so it can be stopped at any time."""
    shipped = make_site(None, bundle_path=bundle).bundle
    bundle_id = shipped.id if shipped is not None else "rules"
    for path in sorted(folder.glob("*.manifest.json")):
        manifest = msgspec.json.decode(path.read_bytes())
        lines = read_ledger(ledger)
        known = next((x for x in lines if x.capture_sha256 == manifest["sha256"]), None)
        if known is not None and not again and bundle_id in {f.bundle for f in known.findings}:
            say(f"{manifest['run']}: counted before")
            continue
        line = count_run(folder, manifest, known, bundle=bundle)
        others = [x for x in lines if x.capture_sha256 != line.capture_sha256]
        write_ledger(ledger, [*others, line])
        said = {f.config: f.counts for f in line.findings if f.bundle == bundle_id}
        say(f"{line.run}: {line.hours:.3f} h, {line.frames} frames, {said}")


def _replay(
    pcap: Path, manifest: dict[str, Any], config: Config | None, name: str, bundle: Path | None
) -> tuple[Report, Findings]:
    """The capture through the agent's pipeline; a finding counts once, at the highest severity that it had."""
    site = make_site(config, bundle_path=bundle)
    last: dict[str, Alert] = {}
    report = replay_file(
        pcap,
        make_watch(site, pcap.name),
        on_alert=lambda alert: last.__setitem__(alert.uid, alert),
        on_progress=lambda _n, _share: None,
        close=True,
    )
    counts: dict[str, Counter[str]] = {}
    told = []
    for alert in sorted(last.values(), key=lambda a: a.start_ns):
        counts.setdefault(alert.highest_severity, Counter())[alert.kind] += 1
        if SEVERITIES.index(alert.highest_severity) > LOW:
            told.append(
                {
                    "kind": alert.kind,
                    "severity": alert.highest_severity,
                    "detectors": list(alert.detectors),
                    "at_s": round((alert.start_ns - (report.first_ns or 0)) / 1e9, 1),
                    "after": _event_before(manifest, alert.start_ns),
                }
            )
    return report, Findings(
        bundle=site.bundle.id if site.bundle is not None else "rules",
        config=name,
        counts={s: dict(sorted(counts[s].items())) for s in SEVERITIES if s in counts},
        told=told,
    )


def _event_before(manifest: dict[str, Any], at_ns: int) -> str:
    """The benign event that had begun last, and whether it was over."""
    begun = [h for h in manifest["happened"] if h["began_ns"] <= at_ns + 10**9]
    if not begun:
        return "nothing"
    event = max(begun, key=lambda h: h["began_ns"])
    over_s = (at_ns - event["ended_ns"]) / 1e9
    name = str(event["step"]["name"])
    return name if over_s <= 0 else f"{name} (over for {over_s:.0f} s)"


def summary(lines: list[Line]) -> list[str]:
    """What all lines say: hours, events, and by bundle and configuration the false findings a gateway-day."""
    hours, events = sum(line.hours for line in lines), Counter[str]()
    for line in lines:
        events.update(line.events)
    out = [
        f"{len(lines)} runs, {hours:.2f} gateway-hours, {sum(line.frames for line in lines)} frames"
    ]
    out.append("events: " + ", ".join(f"{name} {n}" for name, n in sorted(events.items())))
    keys = {(f.bundle, f.config): 0 for line in lines for f in line.findings}
    for bundle, config in keys:
        pairs = [
            (line.hours, f)
            for line in lines
            for f in line.findings
            if (f.bundle, f.config) == (bundle, config)
        ]
        covered_h = sum(h for h, _ in pairs)
        out.append(f"{bundle}, {config} ({covered_h:.2f} h):")
        for label, wanted in (("medium or above", SEVERITIES[LOW + 1 :]), ("low", ("low",))):
            kinds = Counter[str]()
            for _, f in pairs:
                for severity in wanted:
                    kinds.update(f.counts.get(severity, {}))
            n = kinds.total()
            low, high = (24 * limit / covered_h for limit in poisson(n))
            named = ", ".join(f"{kind} {k}" for kind, k in sorted(kinds.items()))
            out.append(
                f"  {label}: {n}, {24 * n / covered_h:.2f} a gateway-day [{low:.2f}, {high:.2f}]"
                + (f": {named}" if named else "")
            )
    return out
