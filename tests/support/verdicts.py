"""Small builders: hosts by a number, verdicts with sound defaults."""

from agent.records import V4_MAPPED_LO, Endpoint, Fact, Verdict

SECOND = 10**9
T0 = 1_700_000_000 * SECOND


def host(number: int) -> Endpoint:
    """10.0.x.y"""
    return Endpoint(0, V4_MAPPED_LO | 0x0A000000 | number)


ATTACKER = host(66)
VICTIM = host(7)


def verdict(second: float = 0, kind: str = "tcp_syn_flood", **changes: object) -> Verdict:
    """A rule's word about the slice that begins `second` after T0, seen on the victim's row."""
    attacker = changes.pop("attacker", ATTACKER)
    victim = changes.pop("victim", VICTIM)
    start_ns = T0 + round(second * SECOND)
    values = {
        "detector": "rules",
        "subject": victim,
        "spoofed": False,
        "distributed": False,
        "margin": 500,
        "threshold": 100,
        "score": 0.9,
        "count": 5,
        "ports": (80,),
        "facts": (Fact(feature="in_syn", value=500.0, limit=100.0),),
        **changes,
    }
    return Verdict(
        kind=kind,
        attacker=attacker,
        victim=victim,
        start_ns=start_ns,
        end_ns=start_ns + SECOND,
        **values,
    )


def model(second: float = 0, kind: str = "tcp_syn_flood", **changes: object) -> Verdict:
    """The same as the model says it."""
    return verdict(second, kind, **{"detector": "boosting", **changes})
