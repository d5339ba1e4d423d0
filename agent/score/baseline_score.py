"""How unusual a slice's rows are: every row against the profile that speaks for it. It learns nothing.

A device that is learned speaks for itself; one that is half through its learning does so for the budget only
(`tells` is False). Until then its class speaks for it where that is learned, else the ward does.

In: `Seen`, the profiles. Out: `Judged`, row for row. Raises nothing. Remembers nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from agent.score.baseline_profiles import ID_KINDS, PEERS, SEEN, Profiles

if TYPE_CHECKING:
    from agent.records import I64, U8, U64, BoolArray

NOVELTY = 3
"""What something new counts: as much as 2.8 times the top of a range."""
DRIFT = 2
"""Steps above the anchor that a rate may grow to by itself: twice. It bounds what a slow ramp gains."""
NO_CLASS = -1
NEW = PEER_OUT, PEER_IN, PORT_OUT, PORT_IN = (
    "new_peer_out",
    "new_peer_in",
    "new_port_out",
    "new_port_in",
)
"""Facts of what is new, in the order of `Seen.ids`."""


@dataclass(slots=True, kw_only=True)
class Seen:
    """What one slice shows of devices that have a profile; n rows."""

    numbers: I64
    """(n,) profile, each once."""
    steps: U8
    """(n, n_rates)"""
    spoken: BoolArray
    """(n, n_protocols)"""
    ids: U64
    """(n, 4) keys of the peer sent to, peer received from, port used, own port used of most packets; 0: none."""


@dataclass(slots=True, kw_only=True)
class Judged:
    """The rows' scores and what they are made of."""

    by: I64
    """(n,) profile that speaks for the row; -1: nobody does."""
    score: I64
    excess: U8
    """(n, n_rates) steps above what is normal, at least 0."""
    new: dict[str, BoolArray]
    """By the name of the fact."""
    new_protocols: BoolArray
    """(n, n_protocols)"""
    tells: BoolArray
    """Whether a finding may come of it; else it counts for the budget only."""


def judge(
    profiles: Profiles, seen: Seen, now_ns: int, *, learn_ns: float, min_slices: int
) -> Judged:
    """Score every row."""
    numbers = seen.numbers
    learned = profiles.learned[numbers]
    halfway = (now_ns - profiles.begun_ns[numbers]) * 2 >= learn_ns
    halfway &= profiles.slices[numbers] * 2 >= min_slices
    by = np.where(learned | halfway, numbers, -1)
    classes = profiles.class_of[numbers].astype(np.int64)
    of_class = profiles.max_devices + classes
    by_class = ~learned & (classes != NO_CLASS) & profiles.learned[of_class]
    by = np.where(by_class, of_class, by)
    if profiles.learned[profiles.ward]:
        by = np.where(by < 0, profiles.ward, by)
    by[profiles.accepting[numbers]] = -1
    speaks, own = by >= 0, by == numbers
    excess = _excess(profiles, by, seen.steps)
    excess[~speaks] = 0
    alike = speaks & (by != profiles.ward)  # a ward has every port and protocol
    unknown = profiles.are_new(by, seen.ids)
    new = {
        name: unknown[:, which] & (own if kind == PEERS else alike)
        for which, (name, kind) in enumerate(zip(NEW, ID_KINDS, strict=True))
    }
    new_protocols = seen.spoken & (profiles.protocols[by] < SEEN) & alike[:, None]
    n_new = (
        (new[PEER_OUT] | new[PEER_IN]).astype(np.int64)
        + new[PORT_OUT]
        + new[PORT_IN]
        + new_protocols.any(axis=1)
    )
    return Judged(
        by=by,
        score=excess.max(axis=1, initial=0) + NOVELTY * n_new,
        excess=excess,
        new=new,
        new_protocols=new_protocols,
        tells=speaks & (~own | learned),
    )


def ceiling(profiles: Profiles, by: I64) -> U8:
    """(n, n_rates) the highest step that is normal: the limit, but not far above the anchor, where there is one."""
    return np.asarray(np.minimum(profiles.limit[by], profiles.anchor[by] + np.uint8(DRIFT)))


def _excess(profiles: Profiles, by: I64, steps: U8) -> U8:
    return np.asarray(steps - np.minimum(steps, ceiling(profiles, by)))
