"""What the service says of itself: the parts of a health record that come from its own objects, and `status`.

It never decides anything and keeps nothing. In: loops, spool, publisher, as they stand; any thread.
Out: plain dicts after docs/schemas/health-1.json, payloads after docs/schemas/status-1.json.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

from agent import __version__, health
from agent.alert import topics
from agent.alert.finding import Context
from agent.alert.open_list import SCHEMA_NAME as OPEN_SCHEMA
from agent.alert.severity import SEVERITIES
from agent.source_loop import SourceLoop
from agent.uplink.publisher import Publisher, Voice
from agent.uplink.spool import Spool

STATUS_SCHEMA = "wardwatch.status.v1"


def scoring(loops: Sequence[SourceLoop]) -> list[dict[str, Any]]:
    """How long each detector's last calls took, by source."""
    return [
        {
            "source": loop.source.name,
            "detector": timed.name,
            "rows_total": timed.n_rows,
            **health.quantiles_us(list(timed.last_ns)),
        }
        for loop in loops
        for timed in loop.watch.timed
    ]


def spool(queue: Spool) -> dict[str, Any]:
    """How much waits for the broker, since when, what was dropped, and whether the disk takes it."""
    state = queue.state()
    oldest_s = None
    if state.oldest_created_ns is not None:
        oldest_s = round(max(0, time.time_ns() - state.oldest_created_ns) / 1e9, 1)
    return {
        "rows": state.rows,
        "size_bytes": state.size_bytes,
        "max_bytes": queue.max_bytes,
        "oldest_age_s": oldest_s,
        "dropped_total": {SEVERITIES[n - 1]: k for n, k in state.dropped_by_severity.items()},
        "commits_total": state.n_commits,
        "failed_commits_total": state.n_failed_commits,
        "problem": state.problem,
        "set_aside": state.set_aside,
    }


def uplink(publisher: Publisher | None) -> dict[str, Any]:
    """How the connection to the broker is; None: no broker is configured."""
    state = publisher.state() if publisher else None
    return {
        "state": state.state if state else "not_configured",
        "problem": state.problem if state else None,
        "problem_reason": state.problem_reason if state else None,
        "connects_total": state.n_connects if state else 0,
        "failures_total": state.n_failures if state else {},
        "published_total": state.n_published if state else 0,
        "acknowledged_total": state.n_acknowledged if state else 0,
        "refused_total": state.n_refused if state else 0,
        "n_refused_topics": len(state.refused_topics) if state else 0,
    }


def voice(context: Context, *, config_hash: str, health_record: Callable[[], bytes]) -> Voice:
    """What the uplink says besides findings."""
    names = (context.site, context.ward, context.gateway)

    def status(connect_seq: int, **fields: object) -> bytes:
        return health.to_bytes(
            {
                "schema": STATUS_SCHEMA,
                **fields,
                "connect_seq": connect_seq,
                "ts_ms": time.time_ns() // 1_000_000,
                "version": __version__,
                "bundle": context.bundle,
                "config_hash": config_hash,
            }
        )

    return Voice(
        status_topic=topics.status(*names),
        open_topic=topics.open_findings(*names),
        health_topic=topics.health(*names),
        birth=lambda seq: status(seq, online=True),
        lost=lambda seq: status(seq, online=False, reason="lost"),
        shutdown=lambda seq: status(seq, online=False, reason="shutdown"),
        health=health_record,
        status_schema=STATUS_SCHEMA,
        open_schema=OPEN_SCHEMA,
        health_schema=health.SCHEMA_NAME,
    )
