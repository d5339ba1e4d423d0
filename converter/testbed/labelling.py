"""Labels from a capture: where in it each attack's first and last hostile frame stand.

In: a recorded pcap and what the recorder noted. Out: `Episode`s, and the names of attacks of which not one
frame was seen. The agent's own reader and decoder are used, and the rule of `converter.datasets.labels`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from agent.capture.capture_file import open_capture
from agent.decode.decoder import PacketDecoder
from converter.datasets.labels import Episode, hostile_frames

if TYPE_CHECKING:
    from collections.abc import Sequence

    from converter.testbed.record import Happened

_SLACK_NS = 1_000_000_000
"""Frames may stand in the kernel's queues when a tool has ended."""


def label_capture(
    pcap: Path, happened: "Sequence[Happened]", *, run: str
) -> tuple[list[Episode], list[str]]:
    """Episodes in order of time, and attacks (`kind/variant`) that left no frame."""
    drafts = [
        Episode(
            run=run,
            kind=h.step.kind,
            variant=h.step.name,
            tool=h.step.tool,
            start_ns=h.began_ns,
            end_ns=h.ended_ns + _SLACK_NS,
            attackers=h.attackers,
            victims=h.step.victims,
            spoofed=h.step.spoofed,
            distributed=h.step.distributed,
            ports=h.step.ports,
            attacker_macs=h.attacker_macs,
        )
        for h in happened
        if h.step.kind
    ]
    first = [0] * len(drafts)
    last = [0] * len(drafts)
    frames = [0] * len(drafts)
    decoder = PacketDecoder()
    with open_capture(pcap) as capture:
        for batch in capture:
            table = decoder.decode(batch)
            for i, draft in enumerate(drafts):
                times = table.ts_ns[hostile_frames(table, draft)]
                if len(times):
                    first[i] = (
                        int(times.min()) if not frames[i] else min(first[i], int(times.min()))
                    )
                    last[i] = max(last[i], int(times.max()))
                    frames[i] += int(np.size(times))
    seen = [
        msgspec.structs.replace(d, start_ns=a, end_ns=b, frames=n)
        for d, a, b, n in zip(drafts, first, last, frames, strict=True)
        if n
    ]
    unseen = [f"{d.kind}/{d.variant}" for d, n in zip(drafts, frames, strict=True) if not n]
    return sorted(seen, key=lambda e: e.start_ns), unseen
