"""A capture through the whole pipeline, as `wardwatch replay` does it; findings by kind."""

from dataclasses import dataclass
from pathlib import Path

from agent.assembly import make_site, make_watch
from agent.replay import Report, replay_file

SEVERITIES = ("info", "low", "medium", "high", "critical")


@dataclass(frozen=True)
class Replayed:
    """What came out of one file."""

    events: list
    report: Report

    @property
    def worst(self) -> dict[str, str]:
        """The highest severity of each kind that was found."""
        out: dict[str, str] = {}
        for event in self.events:
            known = out.get(event.kind, "info")
            out[event.kind] = max(known, event.highest_severity, key=SEVERITIES.index)
        return out

    def above_low(self) -> set[str]:
        """Kinds with a finding of medium or more."""
        return {kind for kind, severity in self.worst.items() if SEVERITIES.index(severity) > 1}


def replayed(path: Path, *, no_model: bool = False, close: bool = False) -> Replayed:
    """Replay one file with the shipped bundle (or rules alone)."""
    watch = make_watch(make_site(None, no_model=no_model), path.name)
    events: list = []
    report = replay_file(
        path, watch, on_alert=events.append, on_progress=lambda *_: None, close=close
    )
    return Replayed(events, report)
