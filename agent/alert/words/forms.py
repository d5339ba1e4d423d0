"""How the figure of a feature is written: what its unit is, and over which time it counts.

The rows go by a feature's name, so that a receiver of another version's event reads it, too; a test holds them
against the units of the schema. It makes no text: the forms' words stand in each language's table, `[forms]`.

In: the name of a feature. Out: the name of a form. Raises, remembers: nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

HORIZONS = ("_1s", "_60s")
"""How far back a feature reaches, by the end of its name; without one: at this time."""

FORMS: Mapping[str, str] = {
    "bytes": "bytes_per_second",
    "mqtt_publish_bytes": "bytes_per_second",
    "size_mean": "bytes",
    "size_std": "bytes",
    "size_max": "bytes",
    "gap_mean_us": "microseconds",
    "gap_std_us": "microseconds",
    "gap_max_us": "microseconds",
    "mqtt_keep_alive_max_s": "seconds",
    "payload_share": "percent",
    "syn_answered": "percent",
    "echo_answered": "percent",
    "mqtt_answered": "percent",
    "data_per_syn": "number",
    "mqtt_per_packet": "number",
    "out_in_packets": "number",
    "active": "of_minute",
    "mixed_macs": "of_minute",
    "peers": "things",
    "new_peers": "things",
    "unanswered_peers": "things",
    "services": "things",
    "services_one_peer": "things",
    "new_services": "things",
    "refused_services": "things",
    "arp_targets": "things",
    "arp_unanswered": "things",
    "arp_macs": "things",
    "arp_mac_addresses": "things",
}
"""By name without side and horizon. `things`: distinct ones, which a longer time does not multiply. All others are
sums, and so a rate over a second."""

UNITS: Mapping[str, frozenset[str]] = {
    "per_second": frozenset({"packets", "messages"}),
    "in_minute": frozenset({"packets", "messages", "hosts", "ports", "macs"}),
    "in_second": frozenset({"hosts", "ports"}),
    "of_minute": frozenset({"slices"}),
    "percent": frozenset({"ratio"}),
    "number": frozenset({"ratio"}),
    "bytes": frozenset({"bytes"}),
    "bytes_per_second": frozenset({"bytes"}),
    "microseconds": frozenset({"us"}),
    "seconds": frozenset({"s"}),
}
"""Which units of a schema a form can say; a test holds every feature to it."""


def horizon_of(feature: str) -> tuple[str, str]:
    """A feature's name without its horizon, and that: `_1s`, `_60s` or none."""
    end = next((end for end in HORIZONS if feature.endswith(end)), "")
    return feature.removesuffix(end), end


def form_of(feature: str) -> str:
    """The form of a feature's figure; of one that is not known, the plain number."""
    base, end = horizon_of(feature)
    bare = base.removeprefix("out_").removeprefix("in_")
    form = FORMS.get(base) or FORMS.get(bare)
    if form is not None and form != "things":
        return form
    if end == "_60s":
        return "in_minute"
    if end == "_1s":
        return "in_second" if form else "per_second"
    return "number"


def over_minute(feature: str) -> bool:
    """Whether a ratio's figure has to say that it is one of the last minute."""
    return feature.endswith("_60s") and form_of(feature) in {"percent", "number"}
