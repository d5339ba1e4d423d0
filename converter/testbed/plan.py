"""A recording plan: what to record, how often, from which seed. Read from TOML, checked, never run here.

In: a TOML file. Out: a `Plan`. Raises `ConfigError` with the dotted path of the key that is wrong.
Two plans that are equal expand to equal runs (`schedule.expand`): nothing here asks a clock or chance.

`ward = 2` in a group switches on the wider ward: more kinds of devices (ECG patch, nurse call, DICOM, HL7 over MLLP),
a scanner, devices behind the router, and every benign event of `benign_hard.HARD_EVENTS`, dealt round and round, so
that `benign_events` may exceed their number. Without it a group draws what it always drew. `events` names the benign
events to deal; left out, ward 2 deals all but `vulnerability-scan`: only the site's word (its role and window) tells
that one from an attack, so a training plan has no use for it. Set `devices = [10, 14]` or so: ten kinds come first.
"""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from agent.errors import ConfigError
from converter.testbed.benign_hard import WARD2_EVENTS
from converter.testbed.variants import FIRST_VARIANTS, KINDS, VARIANTS

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Range = tuple[float, float]
Count = tuple[int, int]


class Group(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Runs of one make: with attacks, or without any (`episodes = [0, 0]`)."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9]{0,15}$")]
    """Part of each run's name: `PLAN-NAMEnn`."""
    runs: Annotated[int, msgspec.Meta(ge=1, le=500)]
    duration_s: Range
    """Capture time; drawn per run."""
    episodes: Count = (0, 0)
    """How many attacks a run may hold; fewer where the time does not suffice."""
    gap_s: Range = (3.0, 9.0)
    """Quiet time between two attacks."""
    kinds: list[str] = []
    """Detection ids; empty: all that the testbed knows."""
    variants: list[str] = []
    """Only these variants; empty: every variant of the kinds that is not excluded."""
    table: Annotated[int, msgspec.Meta(ge=1, le=2)] = 1
    """2: the variants of `variants_more` too; 1: those that the first plans were drawn from."""
    exclude: list[str] = []
    """Variants that are never taken (they are for the held-out plan)."""
    benign_events: Count = (1, 3)
    """Benign events that look bad, per run."""
    devices: Count = (7, 11)
    """Simulated devices; the six kinds of a ward come first."""
    load_share: Share = 0.5
    """Share of runs in which two hosts outside the ward keep the machine busy for half the time."""
    offload_share: Share = 0.25
    """Share of runs with segmentation and checksum offloads left on (frames above the MTU)."""
    tls_share: Share = 0.3
    """Share of runs in which part of the devices speak MQTT over TLS."""
    ipv6_share: Share = 0.3
    """Share of runs in which part of the devices reach the broker over IPv6."""
    ward: Annotated[int, msgspec.Meta(ge=1, le=2)] = 1
    """2: the wider ward, its device kinds and benign events; 1: as the first plans drew it."""
    events: list[str] = []
    """Only these benign events (`ward = 2`); empty: all but `vulnerability-scan`."""
    active_attackers_share: Share = 0.6
    """Share of runs in which attacker hosts behave as ordinary laptops between their attacks."""


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A plan: its name, its seed, its groups."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9]{0,15}$")]
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
    group: Annotated[list[Group], msgspec.Meta(min_length=1)]


def load_plan(path: Path) -> Plan:
    """The plan in a TOML file; `ConfigError` names the file, or the dotted path of the wrong key."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise ConfigError("", f"{path}: cannot be read ({e.strerror}); give a plan file") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise ConfigError("", f"{path}: not TOML: {e}") from e
    try:
        plan = msgspec.convert(raw, Plan)
    except msgspec.ValidationError as e:
        raise ConfigError(*_dotted(str(e))) from e
    _check(plan)
    return plan


def _dotted(message: str) -> tuple[str, str]:
    """From msgspec's `problem - at `$.group[0].runs`` as (dotted path, problem)."""
    problem, _, where = message.partition(" - at ")
    path = where.strip("`").removeprefix("$").removeprefix(".")
    unknown = re.search(r"unknown field `([^`]+)`", problem)
    if unknown:
        return (f"{path}.{unknown[1]}" if path else unknown[1]), "unknown key"
    missing = re.search(r"missing required field `([^`]+)`", problem)
    if missing:
        return (f"{path}.{missing[1]}" if path else missing[1]), "is missing"
    return path, problem


def _check(plan: Plan) -> None:
    """What types cannot say: ranges run upward, names exist and are unique."""
    names = [g.name for g in plan.group]
    for i, g in enumerate(plan.group):
        at = f"group[{i}]"
        if g.name in names[:i]:
            raise ConfigError(f"{at}.name", f"{g.name!r} is taken by an earlier group")
        _check_ranges(g, at)
        _check_names(f"{at}.kinds", g.kinds, KINDS)
        for key in ("variants", "exclude"):
            _check_names(f"{at}.{key}", getattr(g, key), [v.name for v in VARIANTS])
        _check_names(f"{at}.events", g.events, [e.name for e in WARD2_EVENTS])
        if g.events and g.ward == 1:
            raise ConfigError(f"{at}.events", "needs ward = 2")
        if g.episodes[1] and not choices(g):
            raise ConfigError(f"{at}.variants", "no variant is left for these kinds")


def _check_ranges(g: Group, at: str) -> None:
    for key in ("duration_s", "episodes", "gap_s", "benign_events", "devices"):
        low, high = getattr(g, key)
        if not 0 <= low <= high:
            raise ConfigError(f"{at}.{key}", f"[{low}, {high}] is not a range upward from 0")
    if g.duration_s[0] < 5 or g.duration_s[1] > 3600:
        raise ConfigError(f"{at}.duration_s", "must lie between 5 and 3600")
    if g.devices[1] > 40:
        raise ConfigError(f"{at}.devices", "at most 40")


def _check_names(at: str, names: list[str], known: Sequence[str]) -> None:
    for j, name in enumerate(names):
        if name not in known:
            raise ConfigError(f"{at}[{j}]", f"{name!r} is not one of {' '.join(known)}")


def choices(group: Group) -> dict[str, list[str]]:
    """Variants by kind that a group may take, in the table's order."""
    out: dict[str, list[str]] = {}
    for v in VARIANTS if group.table == 2 or group.variants else FIRST_VARIANTS:
        wanted = (not group.variants or v.name in group.variants) and v.name not in group.exclude
        if wanted and (not group.kinds or v.kind in group.kinds):
            out.setdefault(v.kind, []).append(v.name)
    return out
