"""What people see on a terminal."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from agent.alert.finding import encode
from agent.alert.render import lines, row_of_alert, row_of_event, show, table
from agent.records import NOBODY, Fact
from tests.support.alerts import ALERT, CONTEXT


def printed(renderable, *, width=160):
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(renderable)
    return console.file.getvalue()


def test_the_gateways_own_terminal_names_hosts_and_says_why_and_what_to_do():
    row = row_of_alert(ALERT, devices=CONTEXT.devices, features=CONTEXT.features)
    assert lines(row).plain.splitlines() == [
        (
            "2023-11-14 22:13:21Z CRITICAL new    TCP SYN flood (tcp_syn_flood)"
            "  10.0.0.66 -> PUMP-07 (10.0.0.7)  9,412 packets  ward"
        ),
        "    why: connection requests received (TCP SYN): 9,412/s (limit 100/s; normal for this device: 3/s)",
        "    do first: Look at the device at the bed: does it still measure, infuse and alarm?",
    ]


def test_a_receiver_sees_pseudonyms_and_asset_tags():
    row = row_of_event(encode(ALERT, context=CONTEXT, sequence=1))
    assert row.attacker.startswith("h-")
    assert row.victim.startswith("PUMP-07 (h-")
    assert row.where == "st-luke/icu-2/gw-07"
    assert row.severity == "critical"


def test_both_views_say_the_same_of_an_event():
    local = row_of_alert(ALERT, devices=CONTEXT.devices, features=CONTEXT.features)
    received = row_of_event(encode(ALERT, context=CONTEXT, sequence=1))
    for field in ("time_ms", "activity", "severity", "uid", "kind", "count", "why", "do_first"):
        assert getattr(local, field) == getattr(received, field)


def test_guards_stand_in_the_event_but_are_not_said():
    facts = (
        Fact(feature="out_services_one_peer_60s", value=72.0, limit=20.0),
        Fact(feature="out_new_services_1s", value=72.0, limit=1.0),
        Fact(feature="out_data_per_syn_60s", value=0.0, limit=0.5),
        Fact(feature="out_tcp_syn_60s", value=80.0, limit=12.0),
        Fact(feature="out_peers_1s", value=3.0),
    )
    scan = replace(ALERT, kind="port_scan", facts=facts)
    event = encode(scan, context=CONTEXT, sequence=1)
    assert [fact["feature"] for fact in event["unmapped"]["wardwatch"]["facts"]] == [
        fact.feature for fact in facts
    ]
    said = (
        "ports that the sender tried on one device: 72 in 60 s (limit 20)",
        "connections tried (TCP SYN): 80 in 60 s (limit 12)",
        "devices that it sent to: 3 in 1 s",
    )
    assert row_of_alert(scan).why == row_of_event(event).why == said


def test_a_french_wards_finding_is_french_through_and_through():
    french = replace(CONTEXT, language="fr")
    row = row_of_alert(ALERT, devices=CONTEXT.devices, features=CONTEXT.features, language="fr")
    assert lines(row).plain.splitlines() == [
        (
            "2023-11-14 22:13:21Z CRITIQUE nouvelle Inondation TCP SYN (tcp_syn_flood)"
            "  10.0.0.66 -> PUMP-07 (10.0.0.7)  9\u202f412 paquets  ward"
        ),
        (
            "    pourquoi\u00a0: demandes de connexion reçues (TCP SYN)\u00a0: 9\u202f412/s"
            " (seuil 100/s\u202f; habituel pour cet appareil\u00a0: 3/s)"
        ),
        (
            "    à faire d\u2019abord\u00a0: Allez voir l\u2019appareil au lit du patient\u00a0: mesures, perfusion"
            " et alarmes fonctionnent-elles encore\u202f?"
        ),
    ]
    received = row_of_event(encode(ALERT, context=french, sequence=1))
    assert (received.why, received.title) == (row.why, row.title)
    assert received.language == "fr"


def test_a_reader_may_have_it_said_anew_in_another_language():
    event = encode(ALERT, context=replace(CONTEXT, language="fr"), sequence=1)
    english = row_of_event(event, language="en")
    assert english == replace(
        row_of_event(encode(ALERT, context=CONTEXT, sequence=1)), language="en"
    )
    assert row_of_event(english_only(event), language="en").language == "en"


def english_only(event):
    """An event of a gateway that did not say its language yet."""
    own = {k: v for k, v in event["unmapped"]["wardwatch"].items() if k != "language"}
    return {**event, "unmapped": {"wardwatch": own}}


def test_a_close_is_one_line_and_many_hosts_are_many():
    row = row_of_alert(replace(ALERT, activity="close", victim=NOBODY))
    assert len(lines(row).plain.splitlines()) == 1
    assert "10.0.0.66 -> many" in lines(row).plain


def test_a_storm_shows_its_counts():
    storm = replace(ALERT, kind="storm", storm_counts={"port_scan": 12}, facts=())
    assert "withheld: 12 of port_scan" in lines(row_of_alert(storm)).plain


def test_the_table_has_one_row_a_finding_the_most_severe_first():
    other = replace(
        ALERT, uid="9a6d0f44-61a7-5a3b-8e0a-000000000009", severity="low", kind="port_scan"
    )
    closed = replace(ALERT, activity="close", severity="high")
    out = printed(table(row_of_alert(a) for a in (other, ALERT, closed)))
    assert out.count("tcp_syn_flood") == 1
    assert out.index("tcp_syn_flood") < out.index("port_scan")
    assert "closed" in out


def test_escapes_and_markup_of_a_forged_event_do_nothing():
    event = encode(ALERT, context=CONTEXT, sequence=1)
    event["finding_info"]["title"] = "\x1b]0;owned\x07[red]TCP[/red]"
    console = Console(file=io.StringIO(), width=80, force_terminal=False)
    show(console, [row_of_event(event)])
    out = console.file.getvalue()
    assert "\x1b" not in out
    assert "[red]TCP[/red]" in out


@pytest.mark.parametrize(
    "event",
    [
        {},
        [],
        {"unmapped": {"wardwatch": {"schema": "other"}}},
        {**encode(ALERT, context=CONTEXT, sequence=1), "severity_id": 99},
        {**encode(ALERT, context=CONTEXT, sequence=1), "evidences": []},
        {**encode(ALERT, context=CONTEXT, sequence=1), "time": None},
    ],
)
def test_what_is_no_finding_event_is_said_so(event):
    with pytest.raises(ValueError, match="not a finding event"):
        row_of_event(event)


def test_a_time_outside_the_calendar_is_shown_as_it_is():
    assert "ms" in lines(row_of_alert(replace(ALERT, time_ns=10**30))).plain
