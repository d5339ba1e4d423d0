"""A plan to its runs: for each run the ward, and what happens when. Pure, and equal for equal plans.

In: `Plan`, optionally another seed. Out: `RunSpec`s, each complete enough to be recorded alone. Variants go
round per kind over the whole plan, so that a plan with enough episodes uses each of them.
"""

import hashlib
from collections.abc import Iterator
from random import Random

import msgspec

from converter.testbed.attacks import Command
from converter.testbed.benign import EVENTS
from converter.testbed.benign_hard import SCAN, WARD2_EVENTS
from converter.testbed.layout import LATER_FIELDS, Host, Ward, draw_ward
from converter.testbed.layout_wide import draw_wide_ward
from converter.testbed.plan import Group, Plan, choices
from converter.testbed.variants import variant

WARM_UP_S = 8.0
"""Benign time before the first attack: devices have connected, ARP is known."""

TAIL_S = 4.0


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happens: an attack (with a `kind`), a benign event, or background load."""

    start_s: float
    """After the capture's start; attacks may be late, never early."""
    lane: str
    """`attack`, `benign` or `load`; the steps of a lane follow each other."""
    name: str
    kind: str = ""
    tool: str = ""
    commands: list[Command]
    attackers: list[str] = []
    """Host names."""
    victims: list[str] = []
    """IP addresses."""
    spoofed: bool = False
    distributed: bool = False
    ports: list[int] = []
    expect_s: float = 0.0


class RunSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One run, complete."""

    run: str
    plan: str
    seed: int
    duration_s: float
    ward: Ward
    cold_start: bool
    """The capture begins before the devices connect."""
    active_attackers: bool
    steps: list[Step]

    @property
    def digest(self) -> str:
        """16 hex digits over everything that the run is made of."""
        raw = msgspec.to_builtins(self)
        for part in (raw["ward"], *raw["ward"]["hosts"]):
            for name, default in LATER_FIELDS.items():
                if part.get(name) == default:
                    part.pop(name, None)  # so that what was recorded before them stays valid
        return hashlib.sha256(msgspec.json.encode(raw)).hexdigest()[:16]


def expand(plan: Plan, seed: int | None = None) -> list[RunSpec]:
    """Every run of the plan; with `seed`, the same plan drawn anew (names carry the seed)."""
    drawn = plan.seed if seed is None else seed
    prefix = plan.name if seed is None else f"{plan.name}s{seed}"
    out = []
    for group in plan.group:
        decks = _Decks(group, Random(f"{drawn}/{group.name}/decks"))
        for i in range(group.runs):
            name = f"{prefix}-{group.name}{i:02}"
            out.append(
                _run(plan, group, Random(f"{drawn}/{name}"), decks, name=name, seed=drawn, number=i)
            )
    return out


class _Decks:
    """Kinds and their variants, each dealt round and round, shuffled anew."""

    def __init__(self, group: Group, rng: Random) -> None:
        self.rng = rng
        self.full = choices(group)
        self.left: dict[str, list[str]] = {}
        self.kinds: list[str] = []

    def deal(self, ward: Ward) -> tuple[str, str] | None:
        """The next kind and its next variant that this ward can hold, None where it holds none of any kind.

        A variant that needs what this ward has goes first: another ward may not have it.
        """
        has = {"", *(["ipv6"] if ward.prefix6 else []), *(["tls"] if ward.tls_port else [])}
        for _ in range(2 * len(self.full)):
            if not self.kinds:
                self.kinds = self._shuffled(list(self.full))
            kind = self.kinds.pop()
            name = self._fitting(kind, has)
            if name:
                self.left[kind].remove(name)
                return kind, name
        return None

    def _fitting(self, kind: str, has: set[str]) -> str:
        """The last of a kind's deck that fits, dealt anew where none does; empty: none ever will."""
        for _ in range(2):
            left = self.left.setdefault(kind, [])
            fitting = [n for n in reversed(left) if variant(n, kind).needs in has]
            if fitting:
                return next((n for n in fitting if variant(n, kind).needs), fitting[0])
            left += self._shuffled([n for n in self.full[kind] if n not in left])
        return ""

    def give_back(self, kind: str, name: str) -> None:
        self.kinds.append(kind)
        self.left[kind].append(name)

    def _shuffled(self, items: list[str]) -> list[str]:
        return self.rng.sample(items, len(items))


def _run(
    plan: Plan, group: Group, rng: Random, decks: _Decks, *, name: str, seed: int, number: int
) -> RunSpec:
    """Draw one run. Shares are dealt by the run's number, so that few runs hold to them too."""

    def share(value: float, salt: int) -> bool:
        return (number * 7 + salt) % 20 < value * 20

    duration_s = round(rng.uniform(*group.duration_s), 1)
    draw = draw_wide_ward if group.ward == 2 else draw_ward
    ward = draw(
        rng,
        devices=rng.randint(*group.devices),
        offloads=share(group.offload_share, 3),
        tls=share(group.tls_share, 9),
        ipv6=share(group.ipv6_share, 14),
    )
    attacks = list(_attacks(group, rng, decks, ward, duration_s))
    steps = attacks + list(_events(group, rng, ward, duration_s, attacks))
    if share(group.load_share, 5 if attacks else 11):
        steps += _load(rng, duration_s)
    return RunSpec(
        run=name,
        plan=plan.name,
        seed=seed,
        duration_s=duration_s,
        ward=ward,
        cold_start=rng.random() < 0.5,
        active_attackers=share(group.active_attackers_share, 1),
        steps=sorted(steps, key=lambda s: s.start_s),
    )


def _attacks(
    group: Group, rng: Random, decks: _Decks, ward: Ward, duration_s: float
) -> Iterator[Step]:
    """Attacks one after the other until the time or their number is used up."""
    wanted, t = rng.randint(*group.episodes), min(WARM_UP_S, duration_s / 4) + rng.uniform(0, 3)
    for _ in range(wanted):
        dealt = decks.deal(ward)
        if dealt is None:
            return
        kind, name = dealt
        row = variant(name, kind)
        hosts: list[Host] = rng.sample(ward.of("attacker"), row.attackers)
        attack = row.build(rng, ward, hosts)
        if t + attack.expect_s > duration_s - TAIL_S:
            decks.give_back(kind, name)
            return
        yield Step(
            start_s=round(t, 3),
            lane="attack",
            name=name,
            kind=kind,
            tool=row.tool,
            commands=attack.commands,
            attackers=[h.name for h in hosts],
            victims=attack.victims,
            spoofed=attack.spoofed,
            distributed=attack.distributed,
            ports=attack.ports,
            expect_s=round(attack.expect_s, 2),
        )
        t += attack.expect_s + rng.uniform(*group.gap_s)


def _events(
    group: Group, rng: Random, ward: Ward, duration_s: float, attacks: list[Step]
) -> Iterator[Step]:
    """Benign events at any time; those that would end an attack only where no attack is."""
    n = rng.randint(*group.benign_events)
    if group.ward == 2:
        yield from _dealt_events(group, rng, ward, duration_s, n, attacks)
        return
    pool = [e for e in EVENTS if not (e.disturbs and attacks)]
    picked = rng.sample(pool, min(n, len(pool)))
    times = sorted(rng.uniform(6, max(7, duration_s - 12)) for _ in picked)
    for event, t in zip(picked, times, strict=True):
        yield Step(
            start_s=round(t, 3), lane="benign", name=event.name, commands=event.build(rng, ward)
        )


def _dealt_events(
    group: Group, rng: Random, ward: Ward, duration_s: float, n: int, attacks: list[Step]
) -> Iterator[Step]:
    """`n` events of the wider ward, each before any comes again, spread over the run."""
    names = group.events or [e.name for e in WARD2_EVENTS if e.name != SCAN]
    pool = [e for e in WARD2_EVENTS if e.name in names and not (e.disturbs and attacks)]
    deck: list[int] = []
    last_s = max(7.0, duration_s - 20)
    for i in range(n if pool else 0):
        if not deck:
            deck = rng.sample(range(len(pool)), len(pool))
        event = pool[deck.pop()]
        t = 6 + (i + rng.random()) * (last_s - 6) / n
        yield Step(
            start_s=round(t, 3), lane="benign", name=event.name, commands=event.build(rng, ward)
        )


def _load(rng: Random, duration_s: float) -> list[Step]:
    """Half the run in two to four stretches: a flood between two hosts outside the ward, and a busy core."""
    n = rng.randint(2, 4)
    each = duration_s / (2 * n)
    return [
        Step(
            start_s=round(i * duration_s / n + rng.uniform(0, each), 2),
            lane="load",
            name="load",
            expect_s=each,
            commands=[
                Command(
                    host="out0",
                    argv=[
                        "hping3",
                        "-q",
                        "-n",
                        "--udp",
                        "-p",
                        "9",
                        "-i",
                        f"u{rng.choice((200, 500, 1000))}",
                        "-d",
                        "64",
                        "203.0.113.2",
                    ],
                    limit_s=each,
                ),
                Command(
                    host="out1",
                    argv=[
                        "{python}",
                        "-m",
                        "converter.testbed.devices",
                        msgspec.json.encode(
                            {"profile": "burn", "seconds": each, "share": rng.choice((0.3, 0.6))}
                        ).decode(),
                    ],
                    limit_s=each + 5,
                    stop="TERM",
                ),
            ],
        )
        for i in range(n)
    ]
