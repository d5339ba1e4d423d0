"""What the service keeps on this gateway besides findings: the inventory, and what people tuned (the state folder).

A change by `wardwatch tune` is in force within a second, without a restart: the file's stamp is looked at each tick,
and SIGHUP reads the settings' own tuning tables again, too. What is wrong leaves what was in force in force (or, of
the file, is left out: then more is told, not less), is logged, and stands in `health`.

In: the site, the sources' loops. Out: new rules to the loops, files, figures for `health`. Raises: nothing.
Remembers: when it last wrote what, and what was used before this start.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from agent.assembly import Site
from agent.config import Config
from agent.config_tuning import SECTIONS, Entry
from agent.errors import ConfigError
from agent.inventory.sightings import Sightings
from agent.inventory_file import InventoryFile
from agent.source_loop import SourceLoop
from agent.tuning import TuningSource, UseTotals, add_uses, is_expired, load_uses, save_uses

MAX_TOLD = 64
"""Entries in a health record, those used last first: it stays a few kilobytes."""
USES_S = 60.0
"""How old the counts that `wardwatch tune list` shows may be."""

log = logging.getLogger("wardwatch")


class LocalState:
    """One gateway's inventory and tuning, while the service runs."""

    def __init__(self, config: Config, *, salt: int) -> None:
        self.sightings = Sightings(salt=salt)
        self.inventory = InventoryFile(config.site.state_dir)
        self._state_dir = config.site.state_dir
        self.inventory.load(self.sightings)
        if self.inventory.problem:
            log.error("inventory: %s", self.inventory.problem)
        self._tuning: TuningSource | None = None
        self._problem: str | None = None
        self._before = load_uses(self._state_dir)
        self._saved: UseTotals = {}
        self._saved_s = time.monotonic()
        self._loops: Sequence[SourceLoop] = ()

    def join(self, site: Site) -> Site:
        """The site with this inventory, for all of its sources."""
        self._tuning = site.tuning
        if site.tuning is not None and site.tuning.problem:
            log.error("tuning: %s; told is what it would silence", site.tuning.problem)
        began_ms = self.inventory.began_ms
        return replace(
            site,
            sightings=self.sightings,
            inventory_began_ns=began_ms * 1_000_000 if began_ms is not None else None,
        )

    def watch(self, loops: Sequence[SourceLoop]) -> None:
        """The sources that new rules go to."""
        self._loops = loops

    def tick(self, *, asked: bool = False) -> None:
        """Bring changes in, write what is due. `asked`: by SIGHUP, so the settings are read again, too."""
        if self._tuning is not None and (asked or self._tuning.changed()):
            self._bring_in(self._tuning, asked=asked)
        now_s = time.monotonic()
        before = self.inventory.problem
        self.inventory.save_if_due(self.sightings, now_s=now_s, wall_offset_ns=_wall_offset_ns())
        if self.inventory.problem and self.inventory.problem != before:
            log.error("inventory: %s", self.inventory.problem)
        if now_s - self._saved_s >= USES_S:
            self._saved_s = now_s
            self._save_uses()

    def close(self) -> None:
        """Write everything, at a clean stop."""
        self._save_uses()
        try:
            self.inventory.save(self.sightings, wall_offset_ns=_wall_offset_ns())
        except OSError as error:
            log.error("inventory: %s: %s", self.inventory.path, error.strerror)  # noqa: TRY400 -- one line

    def health(self) -> dict[str, Any]:
        """`tuning` and `inventory` of the health record."""
        tables = self._tuning.tables() if self._tuning is not None else {}
        now = datetime.now(UTC)
        uses = self._uses()
        entries: list[dict[str, Any]] = []
        for section in SECTIONS:
            for row in tables.get(section, ()):
                use = uses.get((section, row.name))
                entries.append(
                    {
                        "kind": section,
                        "name": row.name,
                        "expired": is_expired(row, now),
                        "verdicts_total": use.verdicts if use else 0,
                        "findings_total": use.findings if use else 0,
                        "last_used_ms": use.last_ns // 1_000_000 if use and use.last_ns else None,
                    }
                )
        entries.sort(key=lambda row: (-(row["last_used_ms"] or 0), row["kind"], row["name"]))
        n_expired = sum(row["expired"] is True for row in entries)
        problem = self._problem or (self._tuning.problem if self._tuning is not None else None)
        return {
            "tuning": {
                "problem": problem,
                "n_entries": len(entries),
                "n_expired": n_expired,
                "entries": entries[:MAX_TOLD],
            },
            "inventory": {"problem": self.inventory.problem, **self.sightings.counters()},
        }

    def _bring_in(self, tuning: TuningSource, *, asked: bool) -> None:
        before = tuning.tables()
        try:
            rules = tuning.read_again() if asked else tuning.read()
        except ConfigError as error:
            self._problem = str(error)
            log.error("tuning: %s; what was in force stays", error)  # noqa: TRY400 -- one line
            return
        self._problem = None
        for loop in self._loops:
            with loop.watch.lock:
                loop.watch.local.replace(rules)
        _log_changes(before, tuning.tables())
        if tuning.problem:
            log.error("tuning: %s; told is what it would silence", tuning.problem)
        else:
            n = sum(map(len, (rules.suppressions, rules.windows, rules.roles, rules.approvals)))
            log.info("tuning: %d entries in force", n)

    def _uses(self) -> UseTotals:
        parts = []
        for loop in self._loops:
            with loop.watch.lock:
                parts.append({k: replace(u) for k, u in loop.watch.local.tuning.uses().items()})
        return add_uses(self._before, *parts)

    def _save_uses(self) -> None:
        uses = self._uses()
        if uses == self._saved:
            return
        try:
            save_uses(self._state_dir, uses)
            self._saved = uses
        except OSError as error:
            log.error("tuning: uses cannot be written: %s", error.strerror)  # noqa: TRY400 -- one line


def _log_changes(
    before: Mapping[str, Sequence[Entry]], after: Mapping[str, Sequence[Entry]]
) -> None:
    """Who has changed what, and why: it decides what is not told from now on."""
    for section in SECTIONS:
        old, new = before.get(section, ()), after.get(section, ())
        for row in old:
            if row not in new:
                log.info("tuning: %s %s is out of force", section, row.name)
        for row in new:
            if row not in old:
                who, why = row.author or "nobody named", row.reason or "no reason given"
                log.info("tuning: %s %s is in force: %s (%s)", section, row.name, why, who)


def _wall_offset_ns() -> int:
    return time.time_ns() - time.monotonic_ns()
