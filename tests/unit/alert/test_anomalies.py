"""An anomaly is low and about the device; where a finding says why, it joins that one."""

from agent.alert.policy import FindingPolicy
from agent.records import NOBODY
from tests.support.verdicts import ATTACKER, SECOND, T0, VICTIM, host, model, verdict


def policy():
    return FindingPolicy(gateway="g", source="ward", site_key=b"k")


def anomaly(second=0, device=VICTIM, **changes):
    return verdict(
        second,
        "device_anomaly",
        detector="baseline",
        attacker=NOBODY,
        victim=device,
        subject=device,
        margin=9,
        threshold=3,
        score=0.83,
        **changes,
    )


def told(findings, *verdicts):
    return findings.consider(list(verdicts), max(v.end_ns for v in verdicts))


def test_alone_it_is_info_then_low_and_not_distributed():
    findings = policy()
    (create,) = told(findings, anomaly(0))
    assert (create.kind, create.severity, create.victim) == ("device_anomaly", "info", VICTIM)
    assert not create.distributed
    told(findings, anomaly(1))
    (update,) = told(findings, anomaly(2))
    assert update.severity == "low"
    assert told(findings, anomaly(3)) == []


def test_what_a_finding_explains_is_no_second_finding():
    findings = policy()
    (create,) = told(findings, verdict(0))
    for device in (VICTIM, ATTACKER):
        assert told(findings, anomaly(1, device)) == []
    (event,) = findings.open_findings()
    assert event.uid == create.uid
    assert event.detectors == ("rules", "baseline")
    assert event.count == create.count
    (other,) = told(findings, anomaly(2, host(200)))
    assert other.kind == "device_anomaly"


def test_in_one_slice_the_attack_is_named_first():
    findings = policy()
    events = told(findings, anomaly(0), model(0, score=0.1))
    assert [e.kind for e in events] == ["tcp_syn_flood"]


def test_it_does_not_keep_an_attack_open_that_is_over():
    findings = policy()
    events = told(findings, verdict(0))
    for second in range(1, 200, 10):
        events += told(findings, anomaly(second))
    lives = [(e.kind, e.activity) for e in events if e.activity != "update"]
    assert lives == [
        ("tcp_syn_flood", "create"),
        ("tcp_syn_flood", "close"),
        ("device_anomaly", "create"),
    ]


def test_it_is_no_second_word_for_a_single_row_of_the_model():
    findings = policy()
    (create,) = told(findings, model(0), anomaly(0))
    assert create.severity == "low"
    assert create.detectors == ("baseline", "boosting")


def test_which_hosts_are_in_findings_and_who_says_so():
    findings = policy()
    told(findings, verdict(0), anomaly(0, host(50)))
    assert findings.open_hosts() == {ATTACKER: True, VICTIM: True, host(50): False}
    findings.close_all(T0 + 10 * SECOND)
    assert findings.open_hosts() == {}
