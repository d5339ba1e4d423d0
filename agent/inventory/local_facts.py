"""What the inventory has to say by itself, as verdicts: a new device, and what only others may do.

A detector like any other, but that it sees the packets, too: what they show waits here until the slice that they
are in is judged. It never says anything that the site has not asked for: a new device only where that is turned on,
the rest only of roles that the site has given.

In: `PacketTable`, then the slices' `FeatureMatrix`. Out: `Verdict`s, exact (`rules`), a host and a slice each.
Raises: nothing. Remembers: at most 256 new devices and 256 offences that no slice has told yet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from agent.inventory.devices import Known
from agent.inventory.roles import DHCP_ANSWER, GATEWAY_CLAIM, SECOND_NS, Offence, RoleWatch, mac_or
from agent.inventory.sightings import Sightings
from agent.records import NOBODY, Endpoint, Fact, FeatureMatrix, PacketTable, Verdict

NEW_DEVICE = "new_device"
MAX_WAITING = 256
MAX_KEPT = 1 << 16
"""Packets kept for approvals: two seconds of a busy ward, 15 MB; of a flood less, and then nothing is approved."""
MAX_TALKS = 4096

FACTS: Mapping[str, str] = {
    NEW_DEVICE: "devices seen for the first time on this segment",
    GATEWAY_CLAIM: "claims to the gateway's address by a machine that is not the gateway, in 1 s",
    DHCP_ANSWER: "DHCP answers by a machine that is not the DHCP server, in 1 s",
}
"""What each fact means, in words."""
KINDS = {GATEWAY_CLAIM: "arp_spoofing", DHCP_ANSWER: "device_anomaly"}


@dataclass(frozen=True, slots=True)
class SliceTalks:
    """As `alert.tuning.Talks`."""

    top: Mapping[str, Endpoint]
    rows: Sequence[tuple[str, Endpoint, int, int]]


class LocalFacts:
    """A source's inventory and roles, as a detector."""

    name = "inventory"

    def __init__(
        self,
        sightings: Sightings,
        roles: RoleWatch,
        *,
        is_listed: Callable[[Endpoint], bool],
        tells_new: Callable[[int], bool] | None = None,
    ) -> None:
        """`tells_new`: whether a device that is new at an event time is told; None: none is."""
        self.sightings = sightings
        self.roles = roles
        self._is_listed = is_listed
        self._tells_new = tells_new
        self._new: deque[tuple[int, Endpoint]] = deque(maxlen=MAX_WAITING)
        self._matrix: FeatureMatrix | None = None
        self.keeps_talks = False
        """Whether anybody will ask with whom a host spoke: where there are approvals."""
        self._kept: deque[PacketTable] = deque()
        self._n_kept = 0
        self._kept_from_ns = 0

    def add(self, table: PacketTable) -> None:
        """Take a batch in, before its slices are judged."""
        for known, ts_ns in self.sightings.add(table):
            if self._tells_new is not None and self._tells_new(ts_ns) and not self._listed(known):
                self._new.append((ts_ns // SECOND_NS, known.key))
        self.roles.add(table)
        if self.keeps_talks:
            self._keep(table)

    def judge(self, matrix: FeatureMatrix) -> list[Verdict]:
        """What the slices up to the matrix's last have shown."""
        self._matrix = matrix
        if not len(matrix):
            return []
        before = int(matrix.end_ns.max()) // SECOND_NS
        out = []
        for _ in range(len(self._new)):
            slice_no, host = self._new.popleft()
            if slice_no < before:
                out.append(_verdict("device_anomaly", NEW_DEVICE, host, NOBODY, slice_no, 1))
            else:
                self._new.append((slice_no, host))
        out += [_offence(offence, n) for offence, n in self.roles.offences(before)]
        out.sort(key=lambda v: (v.end_ns, v.kind, v.attacker))
        return out

    # -- as `alert.tuning.Witness`

    def impostor(self, address: Endpoint, start_ns: int, end_ns: int) -> bool:
        """Whether another machine was `address` in that time."""
        return self.roles.impostor(address, start_ns, end_ns)

    def strangers(self, address: Endpoint, start_ns: int, end_ns: int) -> int:
        """How many hosts that nobody knows `address` asked for in that time."""
        return self.roles.strangers(address, start_ns, end_ns)

    def talks(self, host: Endpoint, end_ns: int) -> SliceTalks | None:
        """With whom a host of the matrix that is being judged spoke; None where not all of it is kept."""
        if self._matrix is None or self._kept_from_ns > end_ns - SECOND_NS:
            return None
        s = self._matrix.subjects
        rows = np.flatnonzero(
            (s.lo == host.lo) & (s.hi == host.hi) & (self._matrix.end_ns == end_ns)
        )
        if not len(rows):
            return None
        row = int(rows[0])
        top = {
            "out": Endpoint(int(s.out_peer_hi[row]), int(s.out_peer_lo[row])),
            "in": Endpoint(int(s.in_peer_hi[row]), int(s.in_peer_lo[row])),
        }
        found: set[tuple[str, Endpoint, int, int]] = set()
        for table in self._kept:
            inside = (table.ts_ns >= end_ns - SECOND_NS) & (table.ts_ns < end_ns)
            for way, own, its in (("out", "src", "dst"), ("in", "dst", "src")):
                mine = (getattr(table, f"{own}_lo") == host.lo) & inside
                at = np.flatnonzero(mine & (getattr(table, f"{own}_hi") == host.hi))
                names = (f"{its}_hi", f"{its}_lo", f"{own}_port", f"{its}_port")
                columns = [getattr(table, name)[at].astype(np.uint64) for name in names]
                for hi, lo, port, peer_port in np.unique(
                    np.stack(columns, axis=1), axis=0
                ).tolist():
                    found.add((way, Endpoint(hi, lo), port, peer_port))
            if len(found) > MAX_TALKS:
                return None
        return SliceTalks(top, sorted(found))

    def _keep(self, table: PacketTable) -> None:
        """Keep the packets of slices that are still to be judged, as many as there is room for."""
        if not len(table):
            return
        if int(table.ts_ns.max()) < self._kept_from_ns - 60 * SECOND_NS:
            self._kept_from_ns = 0  # the clock was set back
        self._kept.append(table)
        self._n_kept += len(table)
        while self._n_kept > MAX_KEPT and len(self._kept) > 1:
            gone = self._kept.popleft()
            self._n_kept -= len(gone)
            self._kept_from_ns = max(self._kept_from_ns, int(gone.ts_ns.max()) + 1)

    def _listed(self, known: Known) -> bool:
        return self._is_listed(known.key) or any(map(self._is_listed, known.addresses))


def _offence(offence: Offence, n: int) -> Verdict:
    victim = offence.address if offence.fact == GATEWAY_CLAIM else NOBODY
    attacker = mac_or(offence.address, offence.mac) if victim != NOBODY else offence.address
    return _verdict(KINDS[offence.fact], offence.fact, attacker, victim, offence.slice_no, n)


def _verdict(
    kind: str, fact: str, attacker: Endpoint, victim: Endpoint, slice_no: int, n: int
) -> Verdict:
    return Verdict(
        detector="rules",
        kind=kind,
        subject=victim if victim != NOBODY else attacker,
        attacker=attacker,
        victim=victim,
        spoofed=False,
        distributed=False,
        start_ns=slice_no * SECOND_NS,
        end_ns=(slice_no + 1) * SECOND_NS,
        margin=n,
        threshold=1,
        score=1.0,
        count=n,
        ports=(),
        facts=(Fact(feature=fact, value=float(n), limit=1.0),),
    )
