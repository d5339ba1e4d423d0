"""Rules: each holds at its limit and not below it, guards let look-alikes pass, roles name the parties."""

import pytest

from agent.features.ip import SCHEMA
from agent.records import MAC_HI, NOBODY, V4_MAPPED_LO, Endpoint
from agent.score.rules import (
    DISTRIBUTED_ATTACKERS,
    MAX_VERDICTS,
    RULES,
    SPOOFED_SOURCES,
    Role,
    Rule,
    RulesDetector,
)
from tests.support.bundles import loud, matrix_of

HOST, PEER = V4_MAPPED_LO | 0x0A000005, V4_MAPPED_LO | 0x0A000009


def holding(rule: Rule, **changed: float) -> dict[str, float]:
    """Features for which a rule just holds."""
    values = {rule.figure: rule.limit, **dict(rule.at_least)}
    return {**values, **changed}


def matrix(rows: list[dict[str, float]], **subjects):
    """A matrix of rows given by feature name."""
    return matrix_of([loud(**row) for row in rows], **subjects)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.kind}:{rule.figure}")
def test_a_rule_holds_at_its_limit_and_not_below(rule):
    detector = RulesDetector(SCHEMA, [rule])
    at = matrix([holding(rule)], lo=[HOST], out_peer_lo=[PEER], in_peer_lo=[PEER])
    below = matrix([holding(rule, **{rule.figure: rule.limit - 1})], lo=[HOST])
    (verdict,) = detector.judge(at)
    assert verdict.kind == rule.kind
    assert verdict.facts[0].feature == rule.figure
    assert verdict.facts[0].limit == rule.limit
    assert verdict.margin >= verdict.threshold
    assert 0 <= verdict.score <= 1
    assert verdict.count >= 1
    assert detector.judge(below) == []


GUARDED = [(r, name, limit, +1) for r in RULES for name, limit in r.at_most] + [
    (r, name, limit, -1) for r in RULES for name, limit in r.at_least
]


@pytest.mark.parametrize(("rule", "name", "limit", "step"), GUARDED, ids=str)
def test_a_guard_lets_the_look_alike_pass(rule, name, limit, step):
    assert (
        RulesDetector(SCHEMA, [rule]).judge(matrix([holding(rule, **{name: limit + step})])) == []
    )


def test_every_rule_names_features_of_the_schema():
    assert RulesDetector(SCHEMA).judge(matrix([{}])) == []
    with pytest.raises(KeyError):
        RulesDetector(SCHEMA, [Rule("port_scan", Role.ATTACKER, "no_such_feature", 1)])


@pytest.mark.parametrize(
    ("role", "attacker", "victim"),
    [
        (Role.ATTACKER, Endpoint(0, HOST), Endpoint(0, PEER)),
        (Role.SCANNER, Endpoint(0, HOST), Endpoint(0, PEER + 1)),
        (Role.SWEEPER, Endpoint(0, HOST), NOBODY),
        (Role.VICTIM, Endpoint(0, PEER), Endpoint(0, HOST)),
        (Role.IMPERSONATED, Endpoint(MAC_HI, 0xAABBCC), Endpoint(0, HOST)),
    ],
)
def test_roles_name_attacker_and_victim(role, attacker, victim):
    rule = Rule("udp_flood", role, "in_udp_1s", 5)
    made = matrix(
        [{"in_udp_1s": 9}],
        lo=[HOST],
        out_peer_lo=[PEER],
        in_peer_lo=[PEER],
        rival_mac=[0xAABBCC],
        probed_lo=[PEER + 1],
    )
    (verdict,) = RulesDetector(SCHEMA, [rule]).judge(made)
    assert (verdict.attacker, verdict.victim) == (attacker, victim)


def test_many_new_sources_are_nobody_in_particular():
    rule = Rule("tcp_syn_flood", Role.VICTIM, "in_tcp_syn_1s", 5)
    made = matrix(
        [{"in_tcp_syn_1s": 9}], lo=[HOST], in_peer_lo=[PEER], in_new_sources=[SPOOFED_SOURCES + 1]
    )
    (verdict,) = RulesDetector(SCHEMA, [rule]).judge(made)
    assert verdict.spoofed
    assert verdict.attacker == NOBODY


def test_several_attackers_of_one_victim_are_one_distributed_attack():
    rule = Rule("mqtt_connect_flood", Role.ATTACKER, "out_mqtt_connects_1s", 2)
    n = DISTRIBUTED_ATTACKERS
    attackers = [HOST + i for i in range(n)]
    rows = [{"out_mqtt_connects_1s": 20 + i} for i in range(n)]
    (verdict,) = RulesDetector(SCHEMA, [rule]).judge(
        matrix(rows, lo=attackers, out_peer_lo=[PEER] * n)
    )
    assert verdict.distributed
    assert verdict.attacker == NOBODY
    assert verdict.count == sum(row["out_mqtt_connects_1s"] for row in rows)
    two = RulesDetector(SCHEMA, [rule]).judge(
        matrix(rows[:2], lo=attackers[:2], out_peer_lo=[PEER] * 2)
    )
    assert [v.attacker for v in two] == [Endpoint(0, a) for a in attackers[:2]]


def test_the_number_of_verdicts_of_a_slice_is_bounded_and_the_rest_counted():
    rule = Rule("ping_sweep", Role.SWEEPER, "out_arp_unanswered_60s", 16)
    n = MAX_VERDICTS + 7
    detector = RulesDetector(SCHEMA, [rule])
    made = matrix([{"out_arp_unanswered_60s": 20}] * n, lo=[HOST + i for i in range(n)])
    assert len(detector.judge(made)) == MAX_VERDICTS
    assert detector.n_suppressed == 7
