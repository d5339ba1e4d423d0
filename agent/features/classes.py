"""The classes that frames and MQTT control packets are counted by, and the sums of them that features use."""

from __future__ import annotations

CLASSES = (
    "other",  # IP that is none of the following
    "syn",
    "synack",
    "rst",
    "fin",
    "ack",
    "data",
    "tls_hello",
    "tls_alert",
    "tls_data",
    "odd",
    "udp",
    "dns_query",
    "dns_response",
    "dhcp",
    "echo_request",
    "echo_reply",
    "unreachable",
    "icmp",
    "fragment",
    "bad",
    "arp_request",
    "arp_reply",
)
"""Each frame is of exactly one class."""

MQTT_CLASSES = (
    "mqtt_other",
    "mqtt_connect",
    "mqtt_connack",
    "mqtt_refused",
    "mqtt_publish",
    "mqtt_delivered",
    "mqtt_subscribe",
    "mqtt_wildcard",
    "mqtt_ping",
    "mqtt_disconnect",
)
"""Each control packet is of exactly one class."""

TCP_DATA = ("data", "tls_hello", "tls_alert", "tls_data")
FRAME_GROUPS = {
    "any_data": TCP_DATA,
    "any_udp": ("udp", "dns_query", "dns_response", "dhcp"),
}
"""Sums of classes, as raw columns of their own."""
MQTT_GROUPS = {
    "mqtt_any": MQTT_CLASSES,
    "mqtt_any_connack": ("mqtt_connack", "mqtt_refused"),
    "mqtt_any_subscribe": ("mqtt_subscribe", "mqtt_wildcard"),
}
"""Sums of classes of control packets, likewise."""
