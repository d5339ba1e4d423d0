"""What a finding says, in words: title, what it means, what to do first. One table a language.

The words are for a biomedical engineer on a ward, not for an analyst: what happens, to which device,
and the first thing to do that cannot harm a patient. It never holds a name seen on the wire.

A language is a row of `LANGUAGES`; each has the same detections (tested). English is the only one now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent.alert.techniques import DETECTIONS, STORM, Group


@dataclass(frozen=True, slots=True)
class Words:
    """One detection in one language."""

    title: str
    what: str
    do_first: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """How a fact is said; the keys in braces are filled in."""

    plain: str
    limit: str
    at_most: str
    """Of a figure below its limit: a rule asks that it is not above."""
    normal: str


_CHECK_DEVICE = "Look at the device at the bed: does it still measure, infuse and alarm?"
_FIND_SENDER = "Find the sender by its switch port or access point, and take it off the network."
_NO_UNPLUG = "Do not unplug the attacked device from the network before its nurse agrees."
_PLANNED = "Ask whether a planned security test or inventory scan is under way."

ENGLISH: dict[str, Words] = {
    "tcp_syn_flood": Words(
        "TCP SYN flood",
        "Somebody opens connections faster than the device can take them; it may stop answering.",
        (_CHECK_DEVICE, _FIND_SENDER, _NO_UNPLUG),
    ),
    "tcp_flood": Words(
        "TCP flood",
        "Somebody sends TCP packets at a rate that can exhaust the device or its network.",
        (_CHECK_DEVICE, _FIND_SENDER, _NO_UNPLUG),
    ),
    "udp_flood": Words(
        "UDP flood",
        "Somebody sends UDP packets at a rate that can exhaust the device or its network.",
        (_CHECK_DEVICE, _FIND_SENDER, _NO_UNPLUG),
    ),
    "icmp_flood": Words(
        "ICMP flood",
        "Somebody sends pings at a rate that can exhaust the device or its network.",
        (_CHECK_DEVICE, _FIND_SENDER, _NO_UNPLUG),
    ),
    "mqtt_connect_flood": Words(
        "MQTT connect flood or password guessing",
        "Somebody opens MQTT sessions again and again: guessing a password, or keeping others out.",
        (
            "Check that the devices of the ward still reach the MQTT broker.",
            "Block the sender at the broker; change the password of an account that was tried.",
            _FIND_SENDER,
        ),
    ),
    "mqtt_publish_flood": Words(
        "MQTT publish flood",
        "Somebody publishes so many MQTT messages that readings of other devices may come late.",
        (
            "Check that readings of the ward's monitors arrive in time.",
            "Block the sender at the broker, unless it is a device known to be broken.",
            _FIND_SENDER,
        ),
    ),
    "mqtt_malformed": Words(
        "Malformed MQTT",
        "Somebody sends MQTT that breaks the protocol; that can crash a broker or a device.",
        (
            "Check that the MQTT broker runs and that its devices are connected.",
            "Ask whether a device's software was changed today.",
            _FIND_SENDER,
        ),
    ),
    "ping_sweep": Words(
        "Network sweep",
        "Somebody looks for which devices are on the ward's network; an attack may follow.",
        (
            _PLANNED,
            "Find who uses the sending machine; take it off the network if nobody knows it.",
        ),
    ),
    "port_scan": Words(
        "Port scan",
        "Somebody tries which services a device offers; an attack may follow.",
        (
            _PLANNED,
            "Find who uses the sending machine; take it off the network if nobody knows it.",
        ),
    ),
    "os_scan": Words(
        "Operating system scan",
        "Somebody finds out what system a device runs; an attack on its weak points may follow.",
        (
            _PLANNED,
            "Find who uses the sending machine; take it off the network if nobody knows it.",
        ),
    ),
    "vulnerability_scan": Words(
        "Vulnerability scan",
        "Somebody tries known weak points of a device; such tests can crash medical devices.",
        (_PLANNED, _CHECK_DEVICE, _FIND_SENDER),
    ),
    "arp_spoofing": Words(
        "ARP spoofing",
        "A machine pretends to be another one, so that the traffic of a device passes through it.",
        (
            "Treat readings and orders of the devices named as not trustworthy; check at the bed.",
            _FIND_SENDER,
            "Change passwords that were used over this network since the time given.",
        ),
    ),
    "device_anomaly": Words(
        "Unusual behaviour of a device",
        "A device behaves unlike itself on this ward; that may be a fault, a change or an attack.",
        ("Ask whether the device was updated, moved or replaced.", _CHECK_DEVICE),
    ),
    "ble_advert_flood": Words(
        "Bluetooth advertisement flood",
        "So many Bluetooth advertisements are in the air that wearables may not be found.",
        (
            "Check that the wearables of the ward are connected.",
            "Look for an unknown device nearby.",
        ),
    ),
    "ble_dos": Words(
        "Bluetooth denial of service",
        "Somebody breaks Bluetooth connections; a wearable may not report.",
        (_CHECK_DEVICE, "Look for an unknown device nearby."),
    ),
    "ble_clone": Words(
        "Bluetooth clone",
        "A second device claims to be one of the ward's wearables; its readings may be forged.",
        (
            "Compare the wearable's readings with another measurement.",
            "Pair the wearable again, at the bed.",
        ),
    ),
    "ble_gatt_abuse": Words(
        "Bluetooth misuse",
        "Somebody reads or writes a wearable's settings in an unexpected way.",
        (_CHECK_DEVICE, "Check the wearable's settings."),
    ),
    "wifi_deauth": Words(
        "Wi-Fi deauthentication",
        "Somebody throws devices off the Wi-Fi.",
        (
            "Check that devices on Wi-Fi are connected; use a cable where one is needed now.",
            "Look for an unknown device nearby.",
        ),
    ),
    "wifi_beacon_flood": Words(
        "Wi-Fi beacon flood",
        "The air is full of made-up Wi-Fi networks; devices may not find theirs.",
        ("Check that devices on Wi-Fi are connected.", "Look for an unknown device nearby."),
    ),
    "wifi_evil_twin": Words(
        "Wi-Fi look-alike",
        "An unknown access point uses the name of the ward's network; devices may join it.",
        (
            "Ask the network team whether an access point was added.",
            "Check which devices have joined it; do not trust their readings.",
        ),
    ),
    STORM: Words(
        "Storm of findings",
        "More findings came than a person can read; those withheld are counted here by kind.",
        (
            "Treat the ward's network as under attack; watch patients at the bed.",
            "Call the security team.",
        ),
    ),
}

LANGUAGES: dict[str, dict[str, Words]] = {"en": ENGLISH}
FACTS: dict[str, Facts] = {
    "en": Facts(
        "{meaning}: {value}", " (limit {limit})", " (at most {limit})", " (normal for it: {normal})"
    )
}


COUNTED: dict[str, dict[Group, str]] = {
    "en": {Group.MQTT: "messages", Group.STORM: "findings", Group.ACCESS: "requests"}
}
"""What a group's count counts, where that is not packets."""
PACKETS = {"en": "packets"}


def counted(kind: str, n: int, language: str = "en") -> str:
    """A finding's count with its unit, `1 packet`; of a kind that this version does not know, packets."""
    say = language if language in COUNTED else "en"
    detection = DETECTIONS.get(kind)
    unit = COUNTED[say].get(detection.group, PACKETS[say]) if detection else PACKETS[say]
    return f"{number(n)} {unit.removesuffix('s') if n == 1 else unit}"


def words(kind: str, language: str = "en") -> Words:
    """The words of a detection; English where the language has none."""
    return LANGUAGES.get(language, ENGLISH)[kind]


def number(value: float) -> str:
    """A figure for people: whole numbers whole, others to three digits that count."""
    if not abs(value) < 1e15:  # infinite and not a number as well
        return f"{value:.3g}"
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


HORIZONS = {"_1s": "1 s", "_60s": "60 s"}
"""How far back a feature reaches, by the end of its name."""
FIGURES: dict[str, str] = {
    "out_services_one_peer": "ports that the sender tried on one device",
    "in_services": "ports of the device that were tried",
    "out_refused_services": "ports that the device refused",
    "out_unanswered_peers": "hosts that it tried and that did not answer",
    "out_echo_requests": "pings sent",
    "in_echo_requests": "pings received",
    "out_tcp_syn": "connections tried (TCP SYN)",
    "in_tcp_syn": "connection requests received (TCP SYN)",
    "out_tcp_odd": "TCP packets with flags that no ordinary system sends",
    "out_arp_unanswered": "addresses that it asked for by ARP or ND and that nobody answered for",
    "out_arp_two_way": "unasked ARP or ND claims by one machine that poses as two hosts to each other",
    "out_arp_contradictions": "ARP or ND claims to an address that another machine is known by",
    "out_mqtt_connects": "MQTT logins tried (CONNECT)",
    "in_mqtt_refused": "MQTT logins that the broker refused",
    "out_mqtt_publishes": "MQTT messages published",
    "out_mqtt_violations": "breaches of the MQTT protocol",
    # What the model's findings name most.
    "in_services_one_peer": "ports of the device that one sender tried",
    "in_mqtt_connects": "MQTT logins received (CONNECT)",
    "in_mqtt_publishes": "MQTT messages received from publishers",
    "in_mqtt_violations": "breaches of the MQTT protocol received",
    "out_tcp_rst": "connections that it refused (TCP RST)",
    "in_tcp_rst": "connections that others refused it (TCP RST)",
    "out_packets": "packets sent",
    "in_packets": "packets received",
    "out_size_mean": "bytes of a packet sent, on average",
    "in_size_mean": "bytes of a packet received, on average",
    "out_arp_unasked": "ARP or ND answers sent that nobody had asked for",
    "in_arp_unasked": "ARP or ND answers received without having asked",
    "in_arp_contradictions": "ARP or ND claims received to an address that another machine is known by",
}
"""Features, without their horizon, in words for a ward; of others the schema's meaning is said."""


def meaning_of(feature: str, meanings: Mapping[str, str]) -> str:
    """What a feature means, with the time that it is counted over; its name where nothing is known."""
    end = next((end for end in HORIZONS if feature.endswith(end)), "")
    meaning = FIGURES.get(feature.removesuffix(end)) or meanings.get(feature, feature)
    over = HORIZONS.get(end, "")
    if not over or meaning == feature or over in meaning:
        return meaning
    return f"{meaning}{',' if ', ' in meaning else ''} in {over}"


def is_guard(value: float, limit: float | None) -> bool:
    """Whether a fact only rules a look-alike out: a figure that is below its limit, or a limit of one at most."""
    return limit is not None and (limit <= 1 or value < limit)


def fact_words(
    meaning: str,
    value: float,
    *,
    limit: float | None = None,
    normal: float | None = None,
    language: str = "en",
) -> str:
    """`SYN packets received: 9,412 (limit 100) (normal for it: 3)`."""
    say = FACTS.get(language, FACTS["en"])
    text = say.plain.format(meaning=meaning, value=number(value))
    if limit is not None:
        text += (say.at_most if value < limit else say.limit).format(limit=number(limit))
    if normal is not None:
        text += say.normal.format(normal=number(normal))
    return text
