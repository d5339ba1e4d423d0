"""What a finding says, in words: title, what it means, why, what to do first. One table a language.

The tables are `en.toml` and `fr.toml` beside this file; a test holds each complete: every detection, every feature
that can be a reason, every unit, the same keys and placeholders. They never hold a name or an address, and nothing
seen on the wire gets into a sentence but numbers. A feature that no table knows (of another version) is said by
its schema's meaning, in English.

In: ids and numbers. Out: text for people. Raises: nothing on ids and numbers; `KeyError` on a language that is not
in `LANGUAGES` (the settings refuse one). Remembers: the tables that were read.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from agent.alert.techniques import DETECTIONS, STORM, Group
from agent.alert.words.forms import form_of, horizon_of, over_minute
from agent.records import Fact

LANGUAGES = ("en", "fr")
"""Of the settings, `alert.language`."""
DEFAULT = "en"

_FLOOD = ("check_device", "find_sender", "no_unplug")
_SCAN = ("planned", "find_user")
DO_FIRST: Mapping[str, tuple[str, ...]] = {
    "tcp_syn_flood": _FLOOD,
    "tcp_flood": _FLOOD,
    "udp_flood": _FLOOD,
    "icmp_flood": _FLOOD,
    "mqtt_connect_flood": ("reach_broker", "block_login", "find_sender"),
    "mqtt_publish_flood": ("readings_in_time", "block_sender", "find_sender"),
    "mqtt_malformed": ("broker_runs", "software_changed", "find_sender"),
    "ping_sweep": _SCAN,
    "port_scan": _SCAN,
    "os_scan": _SCAN,
    "vulnerability_scan": ("planned", "check_device", "find_sender"),
    "arp_spoofing": ("distrust_readings", "find_sender", "change_passwords"),
    "device_anomaly": ("device_changed", "check_device"),
    "ble_advert_flood": ("wearables_connected", "look_nearby"),
    "ble_dos": ("check_device", "look_nearby"),
    "ble_clone": ("compare_readings", "pair_again"),
    "ble_gatt_abuse": ("check_device", "wearable_settings"),
    "wifi_deauth": ("wifi_or_cable", "look_nearby"),
    "wifi_beacon_flood": ("wifi_connected", "look_nearby"),
    "wifi_evil_twin": ("ask_network_team", "who_joined"),
    STORM: ("watch_patients", "call_security"),
}
"""What to do first, by detection: at most three steps of the table `[steps]`, none of which can harm a patient."""

COUNTED: Mapping[Group, str] = {
    Group.MQTT: "message",
    Group.STORM: "finding",
    Group.ACCESS: "request",
}
"""What a group's count counts, where that is not packets."""


@dataclass(frozen=True, slots=True)
class Words:
    """One detection in one language."""

    title: str
    what: str
    do_first: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Language:
    """One table, by its sections."""

    code: str
    numbers: Mapping[str, str]
    labels: Mapping[str, str]
    counted: Mapping[str, tuple[str, str]]
    facts: Mapping[str, str]
    forms: Mapping[str, str]
    steps: Mapping[str, str]
    kinds: Mapping[str, Mapping[str, str]]
    features: Mapping[str, str]


@cache
def language(code: str = DEFAULT) -> Language:
    """The table of a language, with its typography; `KeyError` where there is none."""
    if code not in LANGUAGES:
        raise KeyError(code)
    with (Path(__file__).parent / f"{code}.toml").open("rb") as file:
        tree = tomllib.load(file)
    if code == "fr":
        tree = {name: _typeset(section) for name, section in tree.items()}
    counted = {unit: (one, several) for unit, (one, several) in tree.pop("counted").items()}
    return Language(code=code, counted=counted, **tree)


def words(kind: str, code: str = DEFAULT) -> Words:
    """The words of a detection; `KeyError` on one that this version does not know."""
    say = language(code)
    row = say.kinds[kind]
    steps = tuple(say.steps[step] for step in DO_FIRST[kind])
    return Words(title=row["title"], what=row["what"], do_first=steps)


def label(name: str, code: str = DEFAULT, /, **filled: object) -> str:
    """One of the words around a finding: `why: {fact}`, `new`, the heads of columns."""
    return language(code).labels[name].format(**filled)


def number(value: float, code: str = DEFAULT) -> str:
    """A figure for people: whole numbers whole, others to three digits that count."""
    if not abs(value) < 1e15:  # infinite and not a number as well
        text = f"{value:.3g}"
    elif value == int(value) or abs(value) >= 1000:
        text = f"{value:,.0f}"
    else:
        text = f"{value:.3g}"
    say = language(code).numbers
    return text.translate({ord(","): say["group"], ord("."): say["decimal"]})


def counted(kind: str, n: int, code: str = DEFAULT) -> str:
    """A finding's count with its unit, `1 packet`; of a kind that this version does not know, packets."""
    detection = DETECTIONS.get(kind)
    unit = COUNTED.get(detection.group, "packet") if detection else "packet"
    one, several = language(code).counted[unit]
    return f"{number(n, code)} {one if n == 1 else several}"


def meaning_of(feature: str, meanings: Mapping[str, str], code: str = DEFAULT) -> str:
    """What a feature counts; `meanings` (the schema's) where no table knows it, its name where nobody does."""
    base, _ = horizon_of(feature)
    return language(code).features.get(base) or meanings.get(feature, feature)


def figure(feature: str, value: float, code: str = DEFAULT, *, beside: bool = False) -> str:
    """A feature's value with its unit and time: `1,200/s`, `72 in 60 s`, `35%`.

    `beside`: for a limit or a normal value, which stands beside a figure that has said its time already.
    """
    forms = language(code).forms
    form = form_of(feature)
    if form == "percent":
        return _over(feature, forms["percent"].format(n=number(value * 100, code)), forms, beside)
    if form in _SCALES:
        scale = next((s for s in _SCALES[form] if abs(value) < s[0]), _SCALES[form][-1])
        text = forms[scale[2]].format(n=number(_three_digits(value / scale[1]), code))
        return _over(feature, text, forms, beside)
    if beside and form in {"in_second", "in_minute", "of_minute"}:
        form = "number"
    return _over(feature, forms[form].format(n=number(value, code)), forms, beside)


_SCALES: Mapping[str, tuple[tuple[float, float, str], ...]] = {
    "bytes_per_second": (
        (1e3, 1, "bytes_per_second"),
        (1e6, 1e3, "kilobytes_per_second"),
        (float("inf"), 1e6, "megabytes_per_second"),
    ),
    "microseconds": (
        (1e3, 1, "microseconds"),
        (1e6, 1e3, "milliseconds"),
        (float("inf"), 1e6, "seconds"),
    ),
}
"""Up to which value, by what it is divided, and the form it has then."""


def _over(feature: str, text: str, forms: Mapping[str, str], beside: bool) -> str:  # noqa: FBT001 - ours
    if beside or not over_minute(feature):
        return text
    return forms["over_minute"].format(value=text)


def _three_digits(value: float) -> float:
    return float(f"{value:.3g}") if abs(value) < 1e15 else value


def is_guard(value: float, limit: float | None) -> bool:
    """Whether a fact only rules a look-alike out: a figure that is below its limit, or a limit of one at most."""
    return limit is not None and (limit <= 1 or value < limit)


def fact_words(
    fact: Fact, code: str = DEFAULT, *, meanings: Mapping[str, str] | None = None
) -> str:
    """`SYN packets received: 9,412/s (attacked device; limit 100/s; normal for it: 3/s)`."""
    say = language(code).facts

    def beside(value: float) -> str:
        return figure(fact.feature, value, code, beside=True)

    text = say["plain"].format(
        meaning=meaning_of(fact.feature, meanings or {}, code),
        value=figure(fact.feature, fact.value, code),
    )
    notes = [say[fact.about]] if fact.about in ABOUT else []
    if fact.limit is not None and not _goes_without_saying(fact):
        kind = "at_most" if fact.value < fact.limit else "limit"
        notes.append(say[kind].format(limit=beside(fact.limit)))
    if fact.normal is not None:
        known = "normal_it" if fact.about in ABOUT else "normal_device"
        whose = "normal_training" if fact.normal_of == "training" else known
        notes.append(say[whose].format(normal=beside(fact.normal)))
    return text + (say["beside"].format(notes=say["between"].join(notes)) if notes else "")


def _goes_without_saying(fact: Fact) -> bool:
    """A limit of one of what is counted: that there is any."""
    counts = form_of(fact.feature) in {"number", "per_second", "in_second", "in_minute"}
    return fact.limit == 1 <= fact.value and counts


ABOUT = ("attacker", "victim")
"""Whose figure a fact may be, by keys of the table `[facts]`."""

NBSP, NARROW = "\u00a0", "\u202f"


def _typeset(tree: Any) -> Any:
    """French typography: no line ends before `: ; ! ? %` or inside guillemets, and apostrophes are curved.

    Source: Lexique des règles typographiques en usage à l'Imprimerie nationale.
    """
    if isinstance(tree, dict):
        return {key: _typeset(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_typeset(value) for value in tree]
    if not isinstance(tree, str):
        return tree
    text = NARROW if tree == " " else tree  # alone: what groups digits
    text = re.sub(r" (?=[;!?])", NARROW, text)
    text = re.sub(r" (?=[:%»])|(?<=«) ", NBSP, text)
    text = re.sub(r"(?<=[}\d]) (?=(?:s|µs|ms|o|ko|Mo|octets)\b)", NBSP, text)
    return text.replace("'", "\u2019")
