"""Tuning by people, from where it is kept to where it is used: the settings, and the file that commands write.

An entry means the same in agent.toml and in `STATE_DIR/tuning.json` (`wardwatch tune`). A file that is wrong
never silences anything: the service goes on without it, loudly. It never changes an entry of agent.toml.

In: `Config`, the state folder. Out: `Rules` for the policies; `Uses` on disk, so that totals outlive a restart.
Raises: `ConfigError` with the dotted path of the entry (`role[0].window`), of one line.
Remembers: `TuningSource`, when it last read the file and what was wrong with it.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from agent.alert.suppression import Suppression
from agent.alert.tuning import Approval, Role, Rules, Use, Window
from agent.config import Config, check_tree, load_config, parse_address
from agent.config_tuning import (
    SECTIONS,
    ApprovalSettings,
    Entry,
    RoleSettings,
    SuppressionSettings,
    TuningFile,
    WindowSettings,
)
from agent.errors import ConfigError
from agent.records import MAC_HI, Endpoint
from agent.state_files import write_whole

FILE = "tuning.json"
USES = "tuning-uses.json"
LOCK = "tuning.lock"
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
NEEDS_WINDOW = "scanner"
NEEDS_MAC = "gateway"

UseTotals = dict[tuple[str, str], Use]


def load_tuning(state_dir: Path) -> TuningFile:
    """What commands have written; empty where there is no such file."""
    path = state_dir / FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return TuningFile()
    except OSError as error:
        raise ConfigError("", f"{path}: cannot be read: {error.strerror}") from error
    try:
        tree = json.loads(data)
    except ValueError as error:
        raise ConfigError("", f"{path}: not valid JSON: {error}") from error
    try:
        return check_tree(tree, TuningFile, folder=state_dir)
    except ConfigError as error:
        raise ConfigError(error.path, f"{error.problem} [{path}]") from error


def save_tuning(state_dir: Path, file: TuningFile) -> None:
    """Write the file, whole or not at all."""
    path = state_dir / FILE
    try:
        write_whole(path, msgspec.json.format(msgspec.json.encode(file), indent=1) + b"\n")
    except OSError as error:
        problem = f"{path}: cannot be written: {error.strerror}"
        raise ConfigError("site.state_dir", problem) from error


@contextlib.contextmanager
def changing(state_dir: Path) -> Iterator[None]:
    """One change at a time, of all commands on this machine."""
    path = state_dir / LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigError("site.state_dir", f"{path}: {error.strerror}") from error
    try:
        if os.geteuid() == 0:
            owner = state_dir.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def rules_of(config: Config | None, file: TuningFile | None = None) -> Rules:
    """Everything that stands in the settings and in the file, checked together."""
    suppressions: list[Suppression] = []
    windows: list[Window] = []
    roles: list[Role] = []
    approvals: list[Approval] = []
    for tables, origin in ((config, ""), (file, FILE)):
        if tables is None:
            continue
        with _told_of(origin):
            suppressions += [_suppression(i, row) for i, row in enumerate(tables.suppress)]
            windows += [_window(i, row) for i, row in enumerate(tables.window)]
            roles += [_role(i, row) for i, row in enumerate(tables.role)]
            approvals += [_approval(i, row) for i, row in enumerate(tables.approve)]
    known = {row.name for row in windows}
    for tables, origin in ((config, ""), (file, FILE)):
        if tables is not None:
            with _told_of(origin):
                _check_windows("role", tables.role, known)
                _check_windows("suppress", tables.suppress, known)
    rules = Rules(
        suppressions=tuple(suppressions),
        windows=tuple(windows),
        roles=tuple(roles),
        approvals=tuple(approvals),
    )
    _check_names(config, file)
    return rules


class TuningSource:
    """The settings and the file, read again where they changed."""

    def __init__(self, config: Config | None, config_file: Path | None = None) -> None:
        self.problem: str | None = None
        """Why the file of commands is not in force; None: it is, or there is none."""
        self._config = config
        self._config_file = config_file
        self._file: TuningFile | None = None
        self._stamp: tuple[int, int, int] | None = None

    def read(self) -> Rules:
        """What is in force now. The settings' own entries must be good; the file's are left out if not."""
        rules = rules_of(self._config)
        self.problem = None
        if self._config is None:
            return rules
        self._stamp = self._stamp_now(self._config.site.state_dir)
        try:
            self._file = load_tuning(self._config.site.state_dir)
            return rules_of(self._config, self._file)
        except ConfigError as error:
            self.problem, self._file = str(error), None
            return rules

    def tables(self) -> dict[str, tuple[Entry, ...]]:
        """The entries in force, by table, as they were written."""
        parts = [tables for tables in (self._config, self._file) if tables is not None]
        return {
            section: tuple(row for tables in parts for row in getattr(tables, section))
            for section in SECTIONS
        }

    def changed(self) -> bool:
        """Whether the file is another than the one last read."""
        if self._config is None:
            return False
        return self._stamp_now(self._config.site.state_dir) != self._stamp

    def read_again(self) -> Rules:
        """After a signal: the tuning tables of the settings, too. Raises `ConfigError`; then all stays."""
        if self._config is not None and self._config_file is not None:
            fresh = load_config(self._config_file)
            tables = {section: getattr(fresh, section) for section in SECTIONS}
            config = msgspec.structs.replace(self._config, **tables)
            rules_of(config)
            self._config = config
        return self.read()

    @staticmethod
    def _stamp_now(state_dir: Path) -> tuple[int, int, int] | None:
        try:
            state = (state_dir / FILE).stat()
        except OSError:
            return None
        return state.st_mtime_ns, state.st_ino, state.st_size


# Uses, on disk.


def load_uses(state_dir: Path) -> UseTotals:
    """Totals up to the last time they were written; none where the file is not there or not whole."""
    try:
        tree: dict[str, Any] = json.loads((state_dir / USES).read_bytes())
        return {
            (section, name): Use(
                verdicts=int(row["verdicts"]),
                findings=int(row["findings"]),
                last_ns=int(row["last_ms"]) * 1_000_000,
            )
            for section, rows in tree.items()
            for name, row in rows.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def save_uses(state_dir: Path, uses: Mapping[tuple[str, str], Use]) -> None:
    """Write totals; raises `OSError`."""
    tree: dict[str, dict[str, dict[str, int]]] = {}
    for (section, name), use in sorted(uses.items()):
        tree.setdefault(section, {})[name] = {
            "verdicts": use.verdicts,
            "findings": use.findings,
            "last_ms": use.last_ns // 1_000_000,
        }
    write_whole(state_dir / USES, json.dumps(tree).encode())


def add_uses(*parts: Mapping[tuple[str, str], Use]) -> UseTotals:
    """The sum of several sources' uses."""
    out: UseTotals = {}
    for part in parts:
        for key, use in part.items():
            total = out.setdefault(key, Use())
            total.verdicts += use.verdicts
            total.findings += use.findings
            total.last_ns = max(total.last_ns, use.last_ns)
    return out


# One entry each: settings to what the policy asks.


@dataclass
class _told_of(contextlib.AbstractContextManager["_told_of"]):  # noqa: N801 -- reads as a phrase
    """Errors inside say from which file an entry is, where it is not the settings."""

    origin: str

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if self.origin and isinstance(error, ConfigError):
            raise ConfigError(error.path, f"{error.problem} [{self.origin}]") from error


def _check_windows(
    section: str,
    rows: Sequence[RoleSettings | SuppressionSettings],
    known: set[str],
) -> None:
    for i, row in enumerate(rows):
        if row.window is not None and row.window not in known:
            raise ConfigError(f"{section}[{i}].window", f'no such window: "{row.window}"')


def _check_names(config: Config | None, file: TuningFile | None) -> None:
    for section in SECTIONS:
        seen: set[str] = set()
        for tables, origin in ((config, ""), (file, f" [{FILE}]")):
            for i, row in enumerate(getattr(tables, section) if tables is not None else ()):
                if row.name in seen:
                    raise ConfigError(f"{section}[{i}].name", f'"{row.name}" is used twice{origin}')
                seen.add(row.name)


def _suppression(i: int, row: SuppressionSettings) -> Suppression:
    try:
        return Suppression(
            name=row.name,
            detection=row.detection,
            where=row.where,
            expires_s=_seconds(row.expires),
            starts_s=_seconds(row.starts) if row.starts else 0,
            daily_s=_hours(row.daily),
            window=row.window,
            reason=row.reason,
            author=row.author,
        )
    except ConfigError as error:
        key = error.path.rpartition(".")[2].removesuffix("_s")
        raise ConfigError(f"suppress[{i}].{key}", error.problem) from error


def _window(i: int, row: WindowSettings) -> Window:
    path = f"window[{i}]"
    try:
        zone = ZoneInfo(row.zone)
    except (KeyError, ValueError, OSError) as error:
        raise ConfigError(
            f"{path}.zone", f'"{row.zone}": no such time zone; such as "Europe/Paris"'
        ) from error
    if not (row.days or row.hours or row.starts or row.ends):
        raise ConfigError(path, "says no time: set days or hours (weekly), or starts and ends")
    if row.starts is not None and row.ends is not None and row.ends <= row.starts:
        raise ConfigError(f"{path}.ends", "must be later than its start")
    if not (row.days or row.hours) and (row.starts is None or row.ends is None):
        missing = "ends" if row.ends is None else "starts"
        raise ConfigError(f"{path}.{missing}", "missing: a one-off window has both ends")
    hours = _hours(row.hours)
    if hours is not None and hours[0] == hours[1]:
        raise ConfigError(f"{path}.hours", "begins when it ends; leave it out for the whole day")
    return Window(
        name=row.name,
        zone=zone,
        days=frozenset(DAYS.index(day) for day in row.days),
        hours_s=hours,
        starts_s=_seconds(row.starts) if row.starts else None,
        ends_s=_seconds(row.ends) if row.ends else None,
    )


def _role(i: int, row: RoleSettings) -> Role:
    path = f"role[{i}]"
    address = parse_address(row.address)
    if address is None or address.hi == MAC_HI or address == Endpoint(0, 0):
        raise ConfigError(f"{path}.address", f'"{row.address}" is no IP address')
    macs = set()
    for k, text in enumerate(row.mac):
        mac = parse_address(text)
        if mac is None or mac.hi != MAC_HI:
            raise ConfigError(f"{path}.mac[{k}]", f'"{text}" is no MAC address')
        macs.add(mac.lo)
    if row.role == NEEDS_WINDOW and row.window is None:
        raise ConfigError(f"{path}.window", "missing: a scanner keeps to a maintenance window")
    if row.role == NEEDS_MAC and not macs:
        raise ConfigError(f"{path}.mac", "missing: a gateway is known by its MAC addresses")
    return Role(
        name=row.name,
        role=row.role,
        address=address,
        macs=frozenset(macs),
        window=row.window,
        expires_s=_seconds(row.expires) if row.expires else None,
    )


def _approval(i: int, row: ApprovalSettings) -> Approval:
    if not row.device.strip() or row.device == "*":
        raise ConfigError(f"approve[{i}].device", "expected an asset tag, an address or a subnet")
    if row.peer == "*" and not row.port:
        raise ConfigError(f"approve[{i}].peer", "set a peer or a port: this approves everything")
    return Approval(
        name=row.name,
        device=row.device,
        peer=row.peer,
        ports=frozenset(row.port),
        expires_s=_seconds(row.expires) if row.expires else None,
    )


def _hours(text: str) -> tuple[int, int] | None:
    if not text:
        return None
    begin, end = (
        int(hours) * 3600 + int(minutes) * 60
        for hours, minutes in (part.split(":") for part in text.split("-"))
    )
    return begin, end


def _seconds(when: datetime) -> int:
    return int(when.timestamp())


def is_expired(row: Entry, now: datetime) -> bool:
    """Whether an entry does nothing any more at `now` (with its zone)."""
    end = row.ends if isinstance(row, WindowSettings) else row.expires
    return end is not None and end.astimezone(UTC) <= now
