"""The columns of `ip-1`: names, units, meanings, and the integers that each feature is made of.

A feature is a count (a raw integer), a ratio (one float64 division of two of them) or a
root (one float64 square root of such a division), then rounded once to float32. Where a ratio or a
root has nothing to divide by it is 0: every feature is finite. Nothing here touches a frame;
`agent.features.ip` fills the raw columns. No identity is a feature: no address, no MAC, no port
number, no TTL, no time of day.

Raw columns are named `out_x`, `in_x` (the slice) and `out_x_60`, `in_x_60` (the last 60 slices).
Counts are of wire packets (a GRO/TSO frame weighs its segments); gaps are between frames.

Source: CONTRACTS "Features are exact".
"""

from __future__ import annotations

from typing import NamedTuple

from agent.features.schema import Feature, Schema

SIDES = ("out", "in")
"""The host as source, the host as destination."""


class Spec(NamedTuple):
    """One feature and what it is computed from."""

    name: str
    unit: str
    dtype: str
    meaning: str
    top: tuple[str, ...]
    """Raw columns: one (count, ratio); sum of squares, then sum (root)."""
    bottom: tuple[str, ...] = ()
    """Raw column: what `top` is divided by (ratio), how many values there were (root)."""


def _both(text: str, side: str) -> str:
    """`{by}` and `{peer}` filled in for a side."""
    by = "sent" if side == "out" else "received"
    peer = "destinations" if side == "out" else "sources"
    return text.format(by=by, peer=peer)


_COUNTS: tuple[tuple[str, tuple[str, ...], str, str, str], ...] = (
    ("packets", ("packets",), "packets", "packets {by}, ARP included", "1s 60s"),
    ("bytes", ("bytes",), "bytes", "bytes on the wire {by}", "1s"),
    ("tcp_syn", ("syn",), "packets", "TCP SYN without ACK {by}", "1s 60s"),
    ("tcp_synack", ("synack",), "packets", "TCP SYN with ACK {by}", "1s"),
    ("tcp_rst", ("rst",), "packets", "TCP RST {by}", "1s 60s"),
    ("tcp_ack", ("ack",), "packets", "TCP ACK without payload {by}", "1s"),
    ("tcp_data", ("any_data",), "packets", "TCP segments with payload {by}", "1s"),
    (
        "tcp_odd",
        ("odd",),
        "packets",
        "TCP with flags that no stack sends (none, FIN without ACK, SYN with FIN, Xmas) {by}",
        "1s 60s",
    ),
    ("udp", ("any_udp",), "packets", "UDP datagrams {by}", "1s 60s"),
    ("echo_requests", ("echo_request",), "packets", "ICMP echo requests {by}", "1s 60s"),
    ("echo_replies", ("echo_reply",), "packets", "ICMP echo replies {by}", "1s"),
    ("unreachables", ("unreachable",), "packets", "ICMP destination unreachable {by}", "1s 60s"),
    ("fragments", ("fragment",), "packets", "IP fragments without a transport header {by}", "1s"),
    ("malformed", ("bad",), "packets", "packets with a broken transport header {by}", "1s"),
    ("dns_queries", ("dns_query",), "packets", "DNS queries {by}", "1s"),
    ("dns_responses", ("dns_response",), "packets", "DNS responses {by}", "1s"),
    ("tls_hellos", ("tls_hello",), "packets", "TLS ClientHellos {by}", "1s 60s"),
    ("tls_alerts", ("tls_alert",), "packets", "TLS alerts {by}", "1s"),
    ("tls_data", ("tls_data",), "packets", "segments that open with TLS data {by}", "1s"),
    ("folded", ("folded",), "packets", "packets {by} whose {peer} got no row of their own", "1s"),
    ("mqtt_messages", ("mqtt_any",), "messages", "MQTT control packets {by}", "1s"),
    ("mqtt_connects", ("mqtt_connect",), "messages", "MQTT CONNECT {by}", "1s 60s"),
    ("mqtt_refused", ("mqtt_refused",), "messages", "MQTT CONNACK of refusal {by}", "1s 60s"),
    (
        "mqtt_publishes",
        ("mqtt_publish",),
        "messages",
        "MQTT PUBLISH {by}, from a client to its broker",
        "1s 60s",
    ),
    (
        "mqtt_deliveries",
        ("mqtt_delivered",),
        "messages",
        "MQTT PUBLISH {by}, from a broker to a subscriber",
        "1s",
    ),
    (
        "mqtt_publish_bytes",
        ("mqtt_publish_bytes",),
        "bytes",
        "bytes of MQTT PUBLISH {by}, from a client to its broker",
        "1s",
    ),
    (
        "mqtt_dup",
        ("mqtt_dup",),
        "messages",
        "MQTT PUBLISH with DUP {by}, from a client to its broker",
        "1s",
    ),
    (
        "mqtt_subscribes",
        ("mqtt_any_subscribe",),
        "messages",
        "MQTT SUBSCRIBE {by}",
        "60s",
    ),
    ("mqtt_wildcards", ("mqtt_wildcard",), "messages", "SUBSCRIBE with a wildcard {by}", "1s"),
    ("mqtt_disconnects", ("mqtt_disconnect",), "messages", "MQTT DISCONNECT {by}", "60s"),
    ("mqtt_violations", ("mqtt_violation",), "messages", "MQTT violations {by}", "1s 60s"),
    (
        "mqtt_keep_alive_max_s",
        ("mqtt_keep_alive_max",),
        "s",
        "longest keep-alive in a CONNECT {by}",
        "1s",
    ),
    ("arp_requests", ("arp_request",), "packets", "ARP requests, ND solicitations {by}", "1s"),
    ("arp_replies", ("arp_reply",), "packets", "ARP replies, ND advertisements {by}", "1s"),
    (
        "arp_unasked",
        ("arp_unasked",),
        "packets",
        "ARP replies and ND advertisements {by} that their receiver had not asked for",
        "1s 60s",
    ),
    (
        "arp_contradictions",
        ("arp_contradiction",),
        "packets",
        "ARP or ND claims {by} that give another MAC than is known for the claimed address",
        "1s 60s",
    ),
    (
        "arp_two_way",
        ("arp_two_way",),
        "packets",
        "unasked ARP or ND claims {by}, by a MAC that tells A it is B and B it is A within 60 s",
        "1s 60s",
    ),
)
"""Name, raw columns, unit, meaning, horizons; for either side."""

_DISTINCT: tuple[tuple[str, str, str, str], ...] = (
    ("out_peers", "hosts", "distinct hosts that it sent IP packets to", "1s 60s"),
    ("in_peers", "hosts", "distinct hosts that sent it IP packets", "1s 60s"),
    ("out_new_peers", "hosts", "of out_peers, those not addressed in the 59 s before", "1s"),
    (
        "in_new_peers",
        "hosts",
        "of in_peers, those that had not addressed it in the 59 s before",
        "1s",
    ),
    (
        "out_new_services",
        "ports",
        "of out_services, (host, port) pairs not addressed in the 60 s before",
        "1s",
    ),
    (
        "in_new_services",
        "ports",
        "(host, own port) pairs by which a host addressed it and had not in the 60 s before",
        "1s",
    ),
    (
        "out_services",
        "ports",
        "distinct (host, port) pairs that it addressed as a client",
        "1s 60s",
    ),
    ("in_services", "ports", "distinct own ports that others addressed as clients", "1s 60s"),
    (
        "out_services_one_peer",
        "ports",
        "most distinct ports that it addressed on one host",
        "1s 60s",
    ),
    ("in_services_one_peer", "ports", "most distinct own ports that one host addressed", "1s 60s"),
    (
        "out_refused_services",
        "ports",
        "distinct (host, own port) pairs that it refused by RST",
        "1s 60s",
    ),
    (
        "in_refused_services",
        "ports",
        "distinct (host, port) pairs that refused it by RST",
        "1s 60s",
    ),
    ("out_arp_targets", "hosts", "distinct addresses that it asked for by ARP or ND", "1s 60s"),
    ("out_active", "slices", "of the last 60 slices, those in which it sent", "60s"),
    ("in_active", "slices", "of the last 60 slices, those in which it received", "60s"),
    (
        "out_unanswered_peers",
        "hosts",
        "hosts that it sent IP packets to and that sent it none",
        "60s",
    ),
    ("in_unanswered_peers", "hosts", "hosts that sent it IP packets and that it sent none", "60s"),
    (
        "out_arp_unanswered",
        "hosts",
        "addresses that it asked for by ARP or ND without any answer",
        "60s",
    ),
    ("arp_macs", "macs", "distinct MACs that claimed its address by ARP or ND", "60s"),
    (
        "arp_mac_addresses",
        "hosts",
        "distinct addresses claimed by a MAC that claimed its address",
        "60s",
    ),
    ("mixed_macs", "slices", "slices in which the MAC that its frames come from changed", "60s"),
)
"""Counts of distinct things and of slices: name (of the raw column too), unit, meaning, horizons."""

_OUT_ONLY = (
    ("group_packets", "group", "packets", "packets sent to multicast or broadcast addresses"),
    (
        "arp_announcements",
        "arp_announcement",
        "packets",
        "gratuitous ARP, or ND to all, in its name",
    ),
)
"""Name, raw column, unit, meaning."""

_RATIOS: tuple[tuple[str, tuple[str, ...], tuple[str, ...], str, str], ...] = (
    ("out_syn_answered", ("in_synack",), ("out_syn",), "SYN-ACKs received per SYN sent", "1s 60s"),
    ("in_syn_answered", ("out_synack",), ("in_syn",), "SYN-ACKs sent per SYN received", "1s 60s"),
    (
        "out_data_per_syn",
        ("out_any_data",),
        ("out_syn",),
        "payload segments sent per SYN sent",
        "60s",
    ),
    (
        "in_data_per_syn",
        ("in_any_data",),
        ("in_syn",),
        "payload segments received per SYN received",
        "60s",
    ),
    (
        "out_echo_answered",
        ("in_echo_reply",),
        ("out_echo_request",),
        "echo replies received per request sent",
        "1s 60s",
    ),
    (
        "out_mqtt_answered",
        ("in_mqtt_any_connack",),
        ("out_mqtt_connect",),
        "CONNACKs received per CONNECT sent",
        "60s",
    ),
    (
        "in_mqtt_answered",
        ("out_mqtt_any_connack",),
        ("in_mqtt_connect",),
        "CONNACKs sent per CONNECT received",
        "60s",
    ),
    (
        "out_in_packets",
        ("out_packets",),
        ("in_packets",),
        "packets sent per packet received",
        "60s",
    ),
)
"""Name, what is divided, by what, meaning, horizons."""


def _moments(side: str) -> list[Spec]:
    """Sizes and gaps of a side, in the slice."""
    packets = (f"{side}_packets",)

    def one(name: str, unit: str, dtype: str, text: str, top: str, bottom: tuple[str, ...]) -> Spec:
        columns = tuple(f"{side}_{c}" for c in top.split())
        return Spec(f"{side}_{name}_1s", unit, dtype, _both(text, side), columns, bottom)

    gaps = (f"{side}_gaps",)
    return [
        one("size_mean", "bytes", "ratio", "mean size of packets {by}", "bytes", packets),
        one(
            "size_std",
            "bytes",
            "root",
            "standard deviation of their size about its whole-number mean",
            "size_squares bytes",
            packets,
        ),
        one("size_max", "bytes", "count", "largest packet {by}", "size_max", ()),
        one(
            "payload_share",
            "ratio",
            "ratio",
            "share of packets {by} that carry transport payload",
            "payloads",
            packets,
        ),
        one(
            "gap_mean_us",
            "us",
            "ratio",
            "mean time since the frame {by} before, in whole microseconds of at most 60 s each",
            "gap_us",
            gaps,
        ),
        one(
            "gap_std_us",
            "us",
            "root",
            "standard deviation of these gaps about their whole-number mean",
            "gap_squares gap_us",
            gaps,
        ),
        one("gap_max_us", "us", "count", "longest of these gaps", "gap_max", ()),
        one(
            "mqtt_per_packet",
            "ratio",
            "ratio",
            "MQTT control packets per frame {by} that carries any",
            "mqtt_any",
            (f"{side}_mqtt_frames",),
        ),
    ]


def _spread(spec: Spec, horizons: str) -> list[Spec]:
    """A feature at each of its horizons."""
    out = []
    if "1s" in horizons:
        out.append(spec._replace(name=f"{spec.name}_1s"))
    if "60s" in horizons:
        top, bottom = (tuple(f"{c}_60" for c in columns) for columns in (spec.top, spec.bottom))
        out.append(spec._replace(name=f"{spec.name}_60s", top=top, bottom=bottom))
    return out


def _specs() -> list[Spec]:
    """All features in order: the slice, then the last 60 slices."""
    specs: list[Spec] = []
    for side in SIDES:
        for name, raw, unit, text, horizons in _COUNTS:
            columns = tuple(f"{side}_{c}" for c in raw)
            spec = Spec(f"{side}_{name}", unit, "count", _both(text, side), columns)
            specs += _spread(spec, horizons)
        specs += _moments(side)
    for name, column, unit, text in _OUT_ONLY:
        specs.append(Spec(f"out_{name}_1s", unit, "count", text, (f"out_{column}",)))
    for name, unit, text, horizons in _DISTINCT:
        specs += _spread(Spec(name, unit, "count", text, (name,)), horizons)
    for name, top, bottom, text, horizons in _RATIOS:
        specs += _spread(Spec(name, "ratio", "ratio", text, top, bottom), horizons)
    return sorted(specs, key=lambda s: s.name.endswith("_60s"))


SPECS: tuple[Spec, ...] = tuple(_specs())
"""The features in the order of the schema."""

SCHEMA = Schema("ip-1", tuple(Feature(s.name, s.unit, s.dtype, s.meaning) for s in SPECS))
"""One row per host and 1 s slice; `_1s` is that slice, `_60s` the 60 slices that end with it."""
