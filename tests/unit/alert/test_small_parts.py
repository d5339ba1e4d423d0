"""Addresses, pseudonyms, topics, token buckets, suppressions, the open list: the small parts."""

import json
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.alert import topics
from agent.alert.burst import TokenBucket, parse_rate
from agent.alert.endpoints import parse, pseudonym, text
from agent.alert.finding import MAX_BYTES
from agent.alert.open_list import encode_open
from agent.alert.suppression import Suppression, Suppressions, no_devices
from agent.errors import ConfigError
from agent.records import MAC_HI, NOBODY, V4_MAPPED_LO, Device, Endpoint
from tests.support.alerts import ALERT
from tests.support.schemas import OPEN, validator
from tests.support.verdicts import ATTACKER, SECOND, T0, VICTIM, host, verdict


@given(
    st.one_of(
        st.ip_addresses(v=4),
        st.ip_addresses(v=6).filter(lambda a: a.ipv4_mapped is None and int(a)),
    )
)
def test_an_address_as_text_is_what_the_standard_library_says(address):
    value = int(address)
    if address.version == 4:
        endpoint = Endpoint(0, V4_MAPPED_LO | value)
    else:
        endpoint = Endpoint(value >> 64, value & (2**64 - 1))
    if endpoint.hi != MAC_HI:
        assert text(endpoint) == str(ip_address(value) if address.version == 4 else address)
    assert parse(text(endpoint)) == endpoint or endpoint.hi == MAC_HI


def test_a_mac_address_and_nobody():
    mac = Endpoint(MAC_HI, 0x0200000000AB)
    assert text(mac) == "02:00:00:00:00:ab"
    assert parse("02-00-00-00-00-AB") == mac
    assert text(NOBODY) == pseudonym(NOBODY, site_key=b"k") == ""
    with pytest.raises(ValueError, match="pump"):
        parse("pump")


def test_topics_hold_only_the_sites_words_and_the_tables():
    assert topics.status("st-luke", "icu-2", "gw-07") == "wardwatch/v1/st-luke/icu-2/gw-07/status"
    assert topics.alert(
        "a", "b", "c", highest_severity="high", source_kind="ip", kind="port_scan"
    ) == ("wardwatch/v1/a/b/c/alert/high/ip/port_scan")
    assert topics.all_alerts() == "wardwatch/v1/+/+/+/alert/#"
    with pytest.raises(ValueError, match="not words"):
        topics.alert("a", "b", "c", highest_severity="bad", source_kind="ip", kind="port_scan")


@given(st.text())
def test_a_name_is_one_level_of_a_topic_whatever_it_holds(name):
    level = topics.level(name)
    assert level
    assert len(level) <= 64
    assert not set(level) & set("+#/\0 \n")


def test_a_bucket_is_exact():
    bucket = TokenBucket(*parse_rate("5/min"))
    assert [bucket.take(T0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert not bucket.take(T0 + 12 * SECOND - 1)
    assert bucket.take(T0 + 12 * SECOND)
    assert not bucket.take(T0 + 12 * SECOND)
    later = T0 + 3600 * SECOND
    assert [bucket.take(later) for _ in range(6)] == [True] * 5 + [False]


@pytest.mark.parametrize("rate", ["", "5", "0/min", "-1/s", "5/year", "many/min"])
def test_a_rate_that_cannot_be_read_is_an_error_with_its_path(rate):
    with pytest.raises(ConfigError, match=r"^alert\.burst: "):
        parse_rate(rate)


def suppression(**changes: object) -> Suppression:
    values = {
        "name": "scanner",
        "detection": "port_scan",
        "where": "10.0.0.66",
        "expires_s": 2_000_000_000,
        "reason": "monthly inventory",
        "author": "b. engineer",
        **changes,
    }
    return Suppression(**values)


PUMPS = {VICTIM: Device(asset_tag="PUMP-07", device_class="pump", criticality="normal")}


@pytest.mark.parametrize(
    ("changes", "covered"),
    [
        ({}, True),
        ({"where": "10.0.0.0/24"}, True),
        ({"where": "10.1.0.0/24"}, False),
        ({"where": "PUMP-07"}, True),
        ({"where": "PUMP-08"}, False),
        ({"where": "::/0"}, True),
        ({"where": "2001:db8::/32"}, False),
        ({"detection": "*"}, True),
        ({"detection": "ping_sweep"}, False),
        ({"expires_s": T0 // SECOND}, False),
        ({"starts_s": T0 // SECOND + 1}, False),
        ({"daily_s": (79_000, 80_100)}, True),
        ({"daily_s": (80_100, 100)}, False),
        ({"daily_s": (80_000, 100)}, True),
    ],
)
def test_a_suppression_covers_what_it_names_and_each_use_is_counted(changes, covered):
    rows = Suppressions([suppression(**changes)], device_of=PUMPS.get)
    assert rows.covers(verdict(0, "port_scan"), wall_ns=T0) is covered
    assert rows.uses() == {"scanner": int(covered)}


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"reason": " "}, "reason"),
        ({"author": ""}, "author"),
        ({"where": ""}, "where"),
        ({"detection": "prot_scan"}, "detection"),
        ({"expires_s": 0}, "expires_s"),
        ({"daily_s": (0, 90_000)}, "daily_s"),
    ],
)
def test_a_suppression_that_does_not_say_enough_is_refused(changes, path):
    with pytest.raises(ConfigError, match=rf"^suppression\[scanner\]\.{path}: "):
        suppression(**changes)


def test_two_suppressions_of_one_name_are_refused():
    with pytest.raises(ConfigError, match="used twice"):
        Suppressions([suppression(), suppression()], device_of=no_devices)


def test_nobody_is_in_no_subnet():
    rows = Suppressions([suppression(detection="*", where="::/0")], device_of=no_devices)
    nobody = verdict(0, "port_scan", attacker=NOBODY, victim=NOBODY, subject=host(1))
    assert not rows.covers(nobody, wall_ns=T0)


def test_the_open_list_is_bounded_and_the_most_severe_come_first():
    low = [
        replace(ALERT, severity="low", uid=f"9a6d0f44-61a7-5a3b-8e0a-{i:012}") for i in range(90)
    ]
    payload = encode_open([*low, ALERT], ts_ms=5)
    record = json.loads(payload)
    validator(OPEN).validate(record)
    assert len(payload) <= MAX_BYTES
    assert record["findings"][0]["uid"] == ALERT.uid
    assert record["n_rest"] + len(record["findings"]) == 91
    empty = json.loads(encode_open([], ts_ms=5))
    validator(OPEN).validate(empty)
    assert empty["findings"] == []


def test_who_attacks_is_not_who_is_attacked():
    assert pseudonym(ATTACKER, site_key=b"k") != pseudonym(VICTIM, site_key=b"k")
