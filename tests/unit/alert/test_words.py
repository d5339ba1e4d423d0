"""Every language says everything: each detection, each possible reason, each unit; nothing is left over."""

import re
import string
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from agent.alert import words as package
from agent.alert.finding import encode
from agent.alert.severity import SEVERITIES
from agent.alert.techniques import DETECTIONS
from agent.alert.words import (
    DO_FIRST,
    LANGUAGES,
    NARROW,
    NBSP,
    counted,
    fact_words,
    figure,
    label,
    language,
    meaning_of,
    number,
    words,
)
from agent.alert.words.forms import FORMS, UNITS, form_of, horizon_of
from agent.config import AlertSettings, parse_config
from agent.errors import ConfigError
from agent.features.schemas import SCHEMAS
from agent.inventory import local_facts
from agent.records import Fact
from agent.score import baseline_score
from agent.score.boosting import TELLS
from agent.score.rules import RULES
from tests.support.alerts import ALERT, CONTEXT
from tests.support.schemas import check_event

FOLDER = Path(package.__file__).parent
FEATURES = {f.name: f for f in SCHEMAS["ip-1"].features}
BASES = {horizon_of(name)[0] for name in FEATURES}
OF_OTHERS = {*baseline_score.NEW, *local_facts.FACTS}
"""Facts of detectors that are no feature."""
OTHERS = [code for code in LANGUAGES if code != "en"]


def leaves(tree, path=()):
    """Every text of a table, by its dotted path; lists by position."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, (*path, key))
    elif isinstance(tree, list):
        for i, value in enumerate(tree):
            yield from leaves(value, (*path, str(i)))
    else:
        yield ".".join(path), tree


TABLES = {
    code: dict(leaves(tomllib.loads((FOLDER / f"{code}.toml").read_text()))) for code in LANGUAGES
}


def holes(text):
    return sorted(name for _, name, _, _ in string.Formatter().parse(text) if name is not None)


def test_the_languages_are_the_tables_and_those_of_the_settings():
    assert {path.stem for path in FOLDER.glob("*.toml")} == set(LANGUAGES)
    assert get_args(get_type_hints(AlertSettings, include_extras=True)["language"]) == LANGUAGES


@pytest.mark.parametrize("code", LANGUAGES)
def test_a_table_says_every_detection_and_every_feature_and_nothing_else(code):
    say = language(code)
    assert set(say.kinds) == set(DETECTIONS) == set(DO_FIRST)
    assert all(set(row) == {"title", "what"} for row in say.kinds.values())
    assert set(say.features) == BASES | OF_OTHERS
    assert {step for steps in DO_FIRST.values() for step in steps} == set(say.steps)
    assert set(say.labels) >= set(SEVERITIES)


@pytest.mark.parametrize("code", OTHERS)
def test_every_language_has_the_same_texts_with_the_same_holes(code):
    assert TABLES[code].keys() == TABLES["en"].keys()
    differing = [
        key for key, text in TABLES["en"].items() if holes(text) != holes(TABLES[code][key])
    ]
    assert not differing


ALIKE = re.compile(r"numbers\.|forms\.|facts\.beside|counted\.message|labels\.info$")
"""What may be the same in two languages: signs of units, words that both have."""


@pytest.mark.parametrize("code", OTHERS)
def test_nothing_is_left_untranslated(code):
    same = [
        key
        for key, text in TABLES["en"].items()
        if text == TABLES[code][key] and not ALIKE.match(key)
    ]
    assert not same
    english = re.compile(
        r"\b(the|of|and|that|sent|received|device|with|from|packets?|others?)\b", re.IGNORECASE
    )
    assert not [key for key, text in TABLES[code].items() if english.search(_without_holes(text))]


def _without_holes(text):
    return re.sub(r"\{\w+\}", "", text)


@pytest.mark.parametrize("code", LANGUAGES)
def test_no_text_is_empty_or_untidy(code):
    for key, text in TABLES[code].items():
        if not key.startswith("numbers."):
            assert text.strip(), key
            assert "  " not in text, key
        if ".steps." in f".{key}" or key.endswith(".what"):
            assert text[0].isupper(), key
            assert text.endswith((".", "?")), key


def test_french_speaks_to_its_reader_politely():
    """Vouvoiement: every step is an imperative in -ez, or says not to."""
    for step in language("fr").steps.values():
        assert re.match(r"(Ne )?(\w+ez\b|vous\b)", step), step


def test_french_typography():
    texts = [text for _, text in leaves_of("fr")]
    assert not [t for t in texts if re.search(r" [:;!?%»]|« |'", t)]
    assert not [t for t in texts if re.search(r"[^\s][;!?»]|[^\s]:(?!$)", t)]
    assert f"l\u2019appareil au lit du patient{NBSP}: " in words("tcp_flood", "fr").do_first[0]


def leaves_of(code):
    say = language(code)
    for section in (say.labels, say.facts, say.forms, say.steps, say.kinds, say.features):
        yield from leaves(section)


def test_a_form_fits_the_unit_of_its_feature():
    assert not [name for name, f in FEATURES.items() if f.unit not in UNITS[form_of(name)]]


def test_no_form_is_for_a_feature_that_is_none():
    bare = {base.removeprefix("out_").removeprefix("in_") for base in BASES}
    assert set(FORMS) <= BASES | bare
    for code in LANGUAGES:
        assert {form_of(name) for name in FEATURES} <= set(language(code).forms)


@pytest.mark.parametrize("code", LANGUAGES)
def test_whatever_a_detector_may_give_as_a_reason_is_said(code):
    """Rules' figures and guards, the kinds' own figures, any feature of the schema: none by its name."""
    ruled = {n for r in RULES for n in (r.figure, *dict(r.at_least), *dict(r.at_most))}
    told = {n for tell in TELLS.values() for n in (*tell.victim, *tell.attacker)}
    for name in {*ruled, *told, *FEATURES, *OF_OTHERS}:
        assert meaning_of(name, {}, code) != name
        said = fact_words(Fact(feature=name, value=1234.5, limit=3.0, normal=0.5), code)
        assert name not in said
        assert "{" not in said
        assert len(said) < 400


@pytest.mark.parametrize("code", LANGUAGES)
@pytest.mark.parametrize("kind", DETECTIONS)
def test_an_event_in_any_language_is_valid_and_holds_no_address(code, kind):
    facts = tuple(
        Fact(feature=name, value=123456.0, limit=1.5, normal=7.25, normal_of="training")
        for name in list(FEATURES)[:5]
    )
    alert = replace(ALERT, kind=kind, facts=facts)
    event = check_event(encode(alert, context=replace(CONTEXT, language=code), sequence=1))
    own = event["unmapped"]["wardwatch"]
    assert own["language"] == code
    assert {fact["normal_of"] for fact in own["facts"]} == {"training"}
    text = " ".join(fact["words"] for fact in own["facts"])
    assert not re.search(r"\d+\.\d+\.\d+\.\d+|([0-9a-f]{2}:){5}|h-[0-9a-f]{16}", text)
    assert event["finding_info"]["analytic"]["name"] == words(kind, "en").title


def test_what_machines_read_is_the_same_in_every_language():
    english, french = (
        encode(ALERT, context=replace(CONTEXT, language=code), sequence=1) for code in LANGUAGES
    )

    def readable(event):
        own = {**event["unmapped"]["wardwatch"], "do_first": [], "language": ""}
        own["facts"] = [{**fact, "words": ""} for fact in own["facts"]]
        info = {**event["finding_info"], "title": "", "desc": ""}
        rest = {"message": "", "remediation": {}, "finding_info": info}
        return {**event, **rest, "unmapped": {"wardwatch": own}}

    assert readable(english) == readable(french)
    assert english["message"] != french["message"]


@pytest.mark.parametrize(
    ("feature", "value", "english", "french"),
    [
        ("in_packets_1s", 1200, "1,200/s", f"1{NARROW}200/s"),
        ("out_tcp_syn_60s", 72, "72 in 60 s", f"72 en 60{NBSP}s"),
        ("out_peers_1s", 3, "3 in 1 s", f"3 en 1{NBSP}s"),
        ("in_payload_share_1s", 0.35, "35%", f"35{NBSP}%"),
        ("out_syn_answered_60s", 0.125, "12.5% over 60 s", f"12,5{NBSP}% sur 60{NBSP}s"),
        ("in_data_per_syn_60s", 0.25, "0.25 over 60 s", f"0,25 sur 60{NBSP}s"),
        ("in_bytes_1s", 1_250_000, "1.25 MB/s", f"1,25{NBSP}Mo/s"),
        ("in_bytes_1s", 999, "999 B/s", f"999{NBSP}o/s"),
        ("in_bytes_1s", 1999, "2 kB/s", f"2{NBSP}ko/s"),
        ("out_size_mean_1s", 57.59, "57.6 bytes", f"57,6{NBSP}octets"),
        ("in_gap_mean_us_1s", 3512, "3.51 ms", f"3,51{NBSP}ms"),
        ("in_gap_max_us_1s", 2_000_000, "2 s", f"2{NBSP}s"),
        ("in_gap_mean_us_1s", 12, "12 µs", f"12{NBSP}µs"),
        ("out_mqtt_keep_alive_max_s_1s", 60, "60 s", f"60{NBSP}s"),
        ("in_active_60s", 7, "in 7 of 60 s", f"dans 7{NBSP}s sur 60"),
        ("of_another_version", 1.5, "1.5", "1,5"),
    ],
)
def test_figures_for_people(feature, value, english, french):
    assert figure(feature, value) == english
    assert figure(feature, value, "fr") == french


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (3.14159, "3.14"), (1234.5, "1,234"), (1e300, "1e+300"), (float("inf"), "inf")],
)
def test_numbers_for_people(value, text):
    assert number(value) == text


def test_a_count_has_its_unit():
    assert counted("port_scan", 2126) == "2,126 packets"
    assert counted("mqtt_connect_flood", 1) == "1 message"
    assert counted("of_another_version", 3) == "3 packets"
    assert counted("port_scan", 2126, "fr") == f"2{NARROW}126 paquets"


def test_a_fact_says_whose_normal_it_is_and_whether_it_had_to_be_below():
    syn = Fact(feature="in_tcp_syn_1s", value=9412.0, limit=100.0, normal=3.0)
    said = "connection requests received (TCP SYN): 9,412/s"
    assert fact_words(syn) == f"{said} (limit 100/s; normal for this device: 3/s)"
    assert fact_words(replace(syn, limit=None, normal_of="training")) == (
        f"{said} (normal in the training data: 3/s)"
    )
    assert fact_words(replace(syn, about="victim")) == (
        f"{said} (attacked device; limit 100/s; normal for it: 3/s)"
    )
    assert fact_words(replace(syn, about="attacker", limit=None), "fr").endswith(
        f"/s (émetteur{NARROW}; habituel pour lui{NBSP}: 3/s)"
    )
    ratio = Fact(feature="out_data_per_syn_60s", value=0.25, limit=0.5)
    assert fact_words(ratio).endswith("tried: 0.25 over 60 s (at most 0.5)")


def test_that_there_is_any_needs_no_limit():
    seen = Fact(feature="new_device", value=1.0, limit=1.0)
    assert fact_words(seen) == "devices seen for the first time on this segment: 1"
    assert "(at most 1)" in fact_words(replace(seen, value=0.0))


def test_a_feature_of_another_version_is_said_by_its_schema():
    fact = Fact(feature="new_1s", value=2.0)
    assert fact_words(fact, "fr", meanings={"new_1s": "packets of a kind"}) == (
        f"packets of a kind{NBSP}: 2/s"
    )
    assert fact_words(fact) == "new_1s: 2/s"


@pytest.mark.parametrize("code", ["de", "EN", "", "fr_FR"])
def test_the_settings_take_no_other_language(code):
    text = f'[site]\nname = "s"\nward = "w"\ngateway = "g"\n[alert]\nlanguage = "{code}"\n'
    with pytest.raises(ConfigError, match=r'alert\.language: expected one of "en", "fr"'):
        parse_config(text, folder=Path())
    assert parse_config(text.replace(f'"{code}"', '"fr"'), folder=Path()).alert.language == "fr"


def test_an_unknown_language_is_our_own_bug_and_loud():
    with pytest.raises(KeyError):
        label("new", "de")
