"""Which features the baseline looks at, and the steps that it measures them in.

A rate is put into one of `N_BINS` steps, two to a doubling: the step of `1 + value / soft`, by the exponent and
the first bit of the float's mantissa, so it is exact on every machine. `soft` is what two of a unit more or less do
not matter below: with `soft` 8, 0 to 3 packets a second are step 0 and 40 are step 5.

In: `FeatureMatrix.values`. Out: (n, n_rates) uint8. Raises: `KeyError` where a schema lacks a feature (our own
bug). Remembers nothing.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from agent.features.schema import Schema
    from agent.records import F32, BoolArray

N_BINS = 48
"""Steps of a rate; the last is 2^23 times `soft`, more than a gigabit link can carry in a second."""
_ONE = 0x3F80_0000
"""The bits of float32 1.0."""
_SHIFT = 22
"""What stays above it of a float32: exponent and one bit of the mantissa."""

_SECOND: Mapping[str, float] = {
    "packets": 8,
    "bytes": 8192,
    "tcp_syn": 4,
    "udp": 8,
    "echo_requests": 4,
    "peers": 3,
    "services": 3,
    "mqtt_connects": 2,
    "mqtt_publishes": 8,
}
_MINUTE: Mapping[str, float] = {
    "packets": 64,
    "tcp_syn": 8,
    "tcp_rst": 8,
    "echo_requests": 8,
    "peers": 4,
    "services": 4,
    "services_one_peer": 3,
    "refused_services": 3,
    "unanswered_peers": 4,
    "mqtt_connects": 4,
    "mqtt_violations": 2,
    "tcp_odd": 2,
    "arp_unasked": 4,
}
_ONE_SIDED: Mapping[str, float] = {
    "out_arp_targets_60s": 6,
    "out_arp_unanswered_60s": 6,
    "in_mqtt_refused_60s": 3,
    "out_arp_contradictions_60s": 2,
    "arp_macs_60s": 1,
    "mixed_macs_60s": 3,
}
RATES: tuple[tuple[str, float], ...] = (
    *((f"{side}_{name}_1s", soft) for name, soft in _SECOND.items() for side in ("out", "in")),
    *((f"{side}_{name}_60s", soft) for name, soft in _MINUTE.items() for side in ("out", "in")),
    *_ONE_SIDED.items(),
)
"""Feature and its `soft`, in the feature's unit."""

PROTOCOLS: tuple[str, ...] = (
    "out_tcp_syn_1s",  # as a client
    "in_tcp_syn_1s",  # as a server
    "out_udp_1s",
    "out_echo_requests_1s",
    "out_dns_queries_1s",
    "out_dns_responses_1s",
    "out_tls_hellos_1s",
    "out_mqtt_connects_1s",
    "out_mqtt_deliveries_1s",
    "out_fragments_1s",
)
"""Features that are above 0 only where a device speaks a protocol, or plays a part in it."""


class Selection:
    """The columns of a schema that the baseline reads."""

    def __init__(self, schema: Schema) -> None:
        index = schema.index
        self._rates = np.array([index[name] for name, _ in RATES])
        self._protocols = np.array([index[name] for name in PROTOCOLS])
        self._soft = np.array([soft for _, soft in RATES], np.float32)
        self.sent = index["out_packets_1s"]
        self.received = index["in_packets_1s"]
        table = [schema.id, schema.digest, RATES, PROTOCOLS, N_BINS]
        self.digest = hashlib.sha256(json.dumps(table).encode()).hexdigest()[:16]
        """16 hex digits over the schema and everything that gives a stored number its meaning."""

    def bins(self, values: F32) -> NDArray[np.uint8]:
        """(n, n_rates) the step of each rate."""
        soft = values.take(self._rates, axis=1)
        soft /= self._soft
        soft += np.float32(1.0)
        steps = soft.view(np.int32)
        steps -= _ONE
        steps >>= _SHIFT
        return np.minimum(steps, N_BINS - 1).astype(np.uint8)

    def spoken(self, values: F32) -> BoolArray:
        """(n, n_protocols) what the row shows of each protocol."""
        return np.asarray(values.take(self._protocols, axis=1) > 0)


def edge(step: int, soft: float) -> float:
    """The smallest value of a step, in the feature's unit."""
    return soft * (float(1 << step // 2) * (1.5 if step % 2 else 1.0) - 1.0)


def middle(step: int, soft: float) -> float:
    """A value to show for a step: 0 for the first, else the middle of the step."""
    return 0.0 if step == 0 else (edge(step, soft) + edge(step + 1, soft)) / 2
