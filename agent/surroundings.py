"""One source's surroundings: the inventory and the roles that it sees, and what people have said about them.

It puts together what the pipeline asks for: a detector that sees packets (`LocalFacts`) and the policy's `Tuning`.
`replace` brings new decisions in while the source runs.

In: `Config`, `Rules`. Out: `Surroundings`. Raises: nothing that `tuning.rules_of` has not raised before.
"""

from collections.abc import Callable
from dataclasses import dataclass

from agent.alert.suppression import DeviceLookup
from agent.alert.tuning import Rules, Tuning
from agent.config import Config
from agent.inventory.local_facts import LocalFacts
from agent.inventory.roles import Bound, RoleWatch
from agent.inventory.sightings import Sightings
from agent.records import Endpoint

SECOND_NS = 10**9
HOUR_NS = 3600 * SECOND_NS


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What one source's pipeline is handed."""

    facts: LocalFacts
    tuning: Tuning

    def replace(self, rules: Rules) -> None:
        """From now on these decisions. Held: the source's lock."""
        self.tuning.replace(rules)
        self.facts.roles.set(bound(rules))
        self.facts.keeps_talks = bool(rules.approvals)


def make_surroundings(
    config: Config | None,
    rules: Rules,
    *,
    devices: DeviceLookup,
    sightings: Sightings,
    began_ns: int | None,
    wall_offset_ns: Callable[[], int],
) -> Surroundings:
    """`began_ns`: wall time at which the inventory was begun; None: with the first device."""

    def is_listed(host: Endpoint) -> bool:
        return devices(host) is not None

    def knows(host: Endpoint) -> bool:
        return sightings.knows(host) or is_listed(host)

    tells_new = None
    if config is not None and config.inventory.new_device_finding:
        tells_new = _after(
            began_ns, round(config.inventory.settle_h * HOUR_NS), wall_offset_ns=wall_offset_ns
        )
    facts = LocalFacts(
        sightings,
        RoleWatch(bound(rules), knows=knows),
        is_listed=is_listed,
        tells_new=tells_new,
    )
    facts.keeps_talks = bool(rules.approvals)
    quiet_s = config.alert.quiet_s if config else 120
    tuning = Tuning(rules, device_of=devices, witness=facts, quiet_ns=quiet_s * SECOND_NS)
    return Surroundings(facts=facts, tuning=tuning)


def bound(rules: Rules) -> list[Bound]:
    """The machines that have a role, as the wire knows them."""
    return [Bound(role=r.role, address=r.address, macs=r.macs) for r in rules.roles]


def _after(
    began_ns: int | None, settle_ns: int, *, wall_offset_ns: Callable[[], int]
) -> Callable[[int], bool]:
    """Whether the time in which everything is new was over at an event time."""
    began = began_ns

    def over(event_ns: int) -> bool:
        nonlocal began
        wall_ns = event_ns + wall_offset_ns()
        if began is None:
            began = wall_ns
        return wall_ns - began >= settle_ns

    return over
