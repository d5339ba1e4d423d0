"""What a baseline says of itself: one summary for `health`, and a row a device for `wardwatch baseline status`.

In: a `BaselineDetector`. Out: plain JSON-safe dicts; names end in their unit. Addresses are still raw: for the
gateway's own terminal. Raises nothing. Remembers nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from agent.records import MAC_HI, Endpoint
from agent.score.baseline_features import RATES, edge, middle
from agent.score.baseline_profiles import PEERS, PORTS_IN, PORTS_OUT

if TYPE_CHECKING:
    from agent.score.baseline import BaselineDetector

SHOWN = ("out_packets_1s", "in_packets_1s")
SECOND_NS = 10**9


def summary(detector: BaselineDetector) -> dict[str, Any]:
    """How far it is, and what its budget gives. `state`: `learning`, `active` or `frozen`."""
    profiles, budget = detector.profiles, detector.budget
    devices = np.array(profiles.devices(), np.int64)
    n_learned = int(np.count_nonzero(profiles.learned[devices]))
    active = bool(profiles.learned[profiles.ward]) or n_learned > 0
    state = "frozen" if detector.frozen else "active" if active else "learning"
    return {
        "state": state,
        "observed_s": detector.now_ns // SECOND_NS,
        "learn_s": detector.settings.learn_s,
        "n_devices": len(devices),
        "n_learned_devices": n_learned,
        "n_learned_classes": int(
            np.count_nonzero(profiles.learned[profiles.max_devices : profiles.ward])
        ),
        "max_devices": profiles.max_devices,
        "threshold": budget.threshold,
        "calibrated": budget.calibrated,
        "budget_per_day": budget.per_day,
        "expected_per_day": expected_per_day(detector),
        "n_sample_rows": len(detector.sample.filled()),
        "counters_total": dict(detector.counters()),
    }


def expected_per_day(detector: BaselineDetector) -> float | None:
    """False findings a day at the present threshold, by the site's own quiet traffic; None: not known yet."""
    budget = detector.budget
    return round(float(budget.rates()[budget.threshold]), 2) if budget.calibrated else None


def devices(detector: BaselineDetector) -> list[tuple[Endpoint, Endpoint, dict[str, Any]]]:
    """Address, MAC address and a row, for each device, in the order of addresses."""
    profiles = detector.profiles
    return [
        (profiles.device(n), Endpoint(MAC_HI, int(profiles.mac[n])), _row(detector, n))
        for n in profiles.devices()
    ]


def _row(detector: BaselineDetector, number: int) -> dict[str, Any]:
    profiles = detector.profiles
    learned, accepting = bool(profiles.learned[number]), bool(profiles.accepting[number])
    place = int(profiles.class_of[number])
    return {
        "state": "learned" if learned else "accepting" if accepting else "learning",
        "class": profiles.classes[place] if place >= 0 else None,
        "known_for_s": (detector.now_ns - int(profiles.since_ns[number])) // SECOND_NS,
        "last_seen_ago_s": (detector.now_ns - int(profiles.last_ns[number])) // SECOND_NS,
        "n_rows": int(profiles.seen[number]),
        "n_peers": _ids(detector, number, PEERS),
        "n_ports_used": _ids(detector, number, PORTS_OUT),
        "n_own_ports": _ids(detector, number, PORTS_IN),
        "rates": {
            name: {
                "normal": middle(profiles.normal(number, i), soft),
                "limit": edge(int(profiles.limit[number, i]) + 1, soft),
            }
            for i, (name, soft) in enumerate(RATES)
            if name in SHOWN
        },
    }


def _ids(detector: BaselineDetector, number: int, kind: int) -> int | None:
    """How many are known; None: too many to be told apart."""
    profiles = detector.profiles
    if profiles.open_sets[number, kind]:
        return None
    return int(np.count_nonzero(profiles.ids[number, kind]))
