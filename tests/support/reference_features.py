"""Schema `ip-1` again, slowly: frame by frame, in Python integers, dictionaries and sets.

It shares no code with `agent.features` but the names of the schema. It keeps every frame of a slice in a
list and counts from there, so what it says is what the definitions say. `ReferenceWindows` takes
the same tables and must give the same bytes.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agent.records import MAC_HI, V4_MAPPED_LO, PacketTable

S = 1_000_000_000
GRACE = 200_000_000
HORIZON = 60
FOLDED, NONE = "folded", "none"
FIN, SYN, RST, ACK, URG = 1, 2, 4, 16, 32
TCP_DATA = {"data", "tls_hello", "tls_alert", "tls_data"}
UDP_ANY = {"udp", "dns_query", "dns_response", "dhcp"}


def tcp_class(flags: int, payload: int, tls: int) -> str:  # noqa: PLR0911  (a table of cases)
    flags &= 63
    if flags & RST:
        return "odd" if flags & (SYN | FIN) else "rst"
    if flags & SYN:
        if flags & (FIN | URG):
            return "odd"
        return "synack" if flags & ACK else "syn"
    if not flags & ACK:
        return "odd"
    if flags & FIN:
        return "fin"
    if not payload:
        return "ack"
    return {1: "tls_hello", 4: "tls_alert", 5: "tls_data"}.get(tls, "data")


def ip_class(p: dict[str, Any]) -> str:  # noqa: C901  (a table of cases)
    reason = p["reason"]
    whole = p["caplen"] >= p["wirelen"]
    bad, cut = reason in (7, 11), reason == 3
    if (bad or cut) and p["fragment"] == 1:
        return "fragment"
    if bad or (cut and whole):
        return "bad"
    if cut or reason == 8:
        return "other"
    if p["fragment"] == 2:
        out = "fragment"
    elif p["proto"] == 6:
        out = tcp_class(p["tcp_flags"], p["payload_len"], p["tls"])
    elif p["proto"] == 17:
        out = "udp"
    elif p["proto"] == 1:
        out = {8: "echo_request", 0: "echo_reply", 3: "unreachable"}.get(p["icmp_type"], "icmp")
    elif p["proto"] == 58:
        out = {128: "echo_request", 129: "echo_reply", 1: "unreachable"}.get(p["icmp_type"], "icmp")
    else:
        out = "other"
    if p.get("dns") is not None:
        out = "dns_response" if p["dns"]["response"] else "dns_query"
    if p.get("dhcp") is not None:
        out = "dhcp"
    return out


def link_of(name: str, p: dict[str, Any]) -> tuple[str, int]:
    sport, dport = p["src_port"], p["dst_port"]
    if name in ("syn", "odd"):
        return "service", dport
    if name == "rst":
        return ("refusal", sport) if sport <= dport else ("pair", 0)
    if name in TCP_DATA | UDP_ANY | {"fin", "ack"} and dport <= sport:
        return "service", dport
    return "pair", 0


def packets_of(table: PacketTable) -> list[dict[str, Any]]:
    """A table as one dictionary a frame."""
    names = [
        n for n in PacketTable.__dataclass_fields__ if isinstance(getattr(table, n), np.ndarray)
    ]
    columns = {n: getattr(table, n).tolist() for n in names}
    out: list[dict[str, Any]] = [{n: columns[n][i] for n in names} for i in range(len(table))]
    for p in out:
        p["mqtt"] = []
    for part in ("arp", "nd", "dns", "dhcp", "mqtt"):
        sub = getattr(table, part)
        fields = {n: getattr(sub, n).tolist() for n in sub.__dataclass_fields__}
        for j, row in enumerate(fields["row"]):
            one = {n: fields[n][j] for n in fields}
            if part == "mqtt":
                out[row]["mqtt"].append(one)
            else:
                out[row][part] = one
    return out


def address(hi: int, lo: int) -> int:
    return hi << 64 | lo


def is_group(p: dict[str, Any]) -> bool:
    hi, lo = p["dst_hi"], p["dst_lo"]
    if p["dst_mac"] >> 40 & 1:
        return True
    if hi == 0 and lo >> 32 == 0xFFFF:
        return (lo & 0xFFFF_FFFF) >> 28 >= 14
    return hi >> 56 == 0xFF and hi != MAC_HI


def nobody(addr: int) -> bool:
    return addr in (0, V4_MAPPED_LO)


@dataclass
class Seen:
    """One frame of a host on one side."""

    name: str
    weight: int
    size: int
    payload: bool
    group: bool
    folded: bool
    gap_us: int | None
    mac_change: bool
    mqtt: list[dict[str, Any]]
    flags: set[str]
    mac: int


@dataclass
class Host:
    slot: int
    admitted: int
    last: int
    mac: int = 0
    shown_mac: int = 0
    clock: dict[str, int] = field(default_factory=dict)
    sides: set[str] = field(default_factory=set)
    history: list[tuple[int, Counter[str]]] = field(default_factory=list)


@dataclass
class Slice:
    frames: dict[tuple[int, str], list[Seen]] = field(default_factory=lambda: defaultdict(list))
    links: Counter[tuple[int, int, str, int]] = field(default_factory=Counter)
    claimed: set[tuple[int, int]] = field(default_factory=set)
    rivals: dict[int, int] = field(default_factory=dict)


class ReferenceClaims:
    def __init__(self) -> None:
        self.asked: dict[tuple[int, int], int] = {}
        self.holder: dict[int, tuple[int, int]] = {}
        self.told: dict[tuple[int, int, int], int] = {}

    def see(self, ask: Any, now: int, sender: int, mac: int, target: int) -> set[str]:
        if ask:
            if sender != target:
                self.asked[sender, target] = now
            if not sender:
                return set()
            return self.bind(
                now, sender, mac, True, {"announcement"} if sender == target else set()
            )
        if not sender:
            return set()
        asked = now - self.asked.get((target, sender), -(10**18)) <= 5 * S
        if sender == target or (target == 0 and not asked):
            return self.bind(now, sender, mac, True, {"announcement"})
        if asked:
            return self.bind(now, sender, mac, True, set())
        flags = {"unasked"}
        self.told[mac, sender, target] = now
        if now - self.told.get((mac, target, sender), -(10**18)) <= 60 * S:
            flags.add("two_way")
        return self.bind(now, sender, mac, False, flags)

    def bind(self, now: int, sender: int, mac: int, teaches: Any, flags: set[str]) -> set[str]:
        if sender not in self.holder:
            if teaches:
                self.holder[sender] = (mac, now)
            return flags
        holder, last = self.holder[sender]
        if holder == mac or (teaches and now - last > 60 * S):
            self.holder[sender] = (mac, now)
            return flags
        return flags | {"contradiction"}


class ReferenceWindows:
    """The slow twin of `HostWindows`; no bound on pairs, services and claims."""

    def __init__(
        self, names: list[str], *, max_hosts: int = 4096, max_new_sources: int = 256
    ) -> None:
        self.names = names
        self.max_hosts = max_hosts
        self.max_new = max_new_sources
        self.clock = -1
        self.first_open = 0
        self.late_run = 0
        self.counts: Counter[str] = Counter()
        self.rows: list[dict[str, Any]] = []
        self.fresh()

    def fresh(self) -> None:
        self.hosts: dict[int, Host] = {}
        self.free = list(range(self.max_hosts - 1, -1, -1))
        self.new: Counter[tuple[int, str, Any]] = Counter()
        self.open: dict[int, Slice] = defaultdict(Slice)
        self.claims = ReferenceClaims()
        self.pairs: dict[tuple[int, int, str], int] = {}
        self.services: dict[tuple[int, int, str, int], int] = {}
        self.macs: dict[tuple[int, int], int] = {}

    # ------------------------------------------------------------ frames

    def add(self, table: PacketTable, ignore: Any = None) -> None:
        for i, p in enumerate(packets_of(table)):
            self.frame(p, bool(ignore is not None and ignore[i]))

    def frame(self, p: dict[str, Any], ignored: Any) -> None:
        ts = p["ts_ns"]
        if ts < max(self.clock, ts) - 5 * S and self.late_run == 255:
            self.close_before(self.clock // S + 1)
            self.fresh()
            self.counts["clock_steps"] += 1
            self.clock, self.first_open, self.late_run = ts, 0, 0
        self.clock = max(self.clock, ts)
        self.close_before((self.clock - GRACE) // S)
        number = ts // S
        late = number < self.first_open
        self.late_run = self.late_run + 1 if late and ts < self.clock - 5 * S else 0
        self.counts["late_frames"] += late
        self.counts["ignored_frames"] += ignored
        p["number"] = number
        self.account(p, late or ignored, ignored)

    def who(
        self, p: dict[str, Any]
    ) -> tuple[int, int, str, tuple[str, int], tuple[Any, ...] | None]:
        """Source and destination address (0 nobody), class, link, claim."""
        claim: tuple[Any, ...] | None = None
        a, nd = p.get("arp"), p.get("nd")
        if a is not None and a["op"] in (1, 2):
            sender = a["sender_ip"] and V4_MAPPED_LO | a["sender_ip"]
            target = a["target_ip"] and V4_MAPPED_LO | a["target_ip"]
            claim = (a["op"] == 1, sender, a["sender_mac"], target)
        elif nd is not None:
            mac = nd["link_mac"] or p["src_mac"]
            wanted = address(nd["target_hi"], nd["target_lo"])
            src, dst = address(p["src_hi"], p["src_lo"]), address(p["dst_hi"], p["dst_lo"])
            if nd["icmp_type"] == 135:
                claim = (True, 0 if nobody(src) else src, mac, wanted)
            else:
                claim = (False, wanted, mac, 0 if is_group(p) else dst)
        if claim is not None:
            ask, sender, mac, target = claim
            src = sender or (mac and address(MAC_HI, mac))
            dst = 0 if target == sender else target
            name = "arp_request" if ask else "arp_reply"
            return src, dst, name, ("ask" if ask else "tell", 0), claim
        if not p["family"]:
            return 0, 0, "other", ("pair", 0), None
        src, dst = address(p["src_hi"], p["src_lo"]), address(p["dst_hi"], p["dst_lo"])
        if nobody(src):
            src = p["src_mac"] and address(MAC_HI, p["src_mac"])
        if is_group(p) or nobody(dst):
            dst = 0
        name = ip_class(p)
        return src, dst, name, link_of(name, p), None

    def account(self, p: dict[str, Any], outside: Any, ignored: Any) -> None:
        src, dst, name, link, claim = self.who(p)
        self.counts["hostless_frames"] += not src and not dst and not ignored
        if outside or (not src and not dst):
            return
        number = p["number"]
        a, b = self.admit(src, dst, number)
        weight = min(max(p["segments"], 1), 127)
        window = self.open[number]
        if FOLDED in (a, b):
            self.counts["folded_packets"] += weight
        flags: set[str] = set()
        if claim is not None:
            ask, sender, mac, target = claim
            flags = self.claims.see(ask, self.clock, sender, mac, target)
            if a not in (FOLDED, NONE) and sender:
                window.claimed.add((src, mac))
                if flags & {"contradiction", "two_way"}:
                    window.rivals[src] = mac
        for side, me, peer, addr in (("out", a, b, src), ("in", b, a, dst)):
            if me in (FOLDED, NONE):
                continue
            host = self.hosts[addr]
            before = host.clock.get(side)
            gap = None if before is None else min((self.clock - before) // 1000, 60_000_000)
            host.clock[side] = self.clock
            change = side == "out" and host.mac not in (0, p["src_mac"])
            if side == "out":
                host.mac = p["src_mac"]
            host.sides.add(side)
            host.last = max(host.last, number)
            group = bool(p["family"]) and is_group(p)
            window.frames[addr, side].append(
                Seen(
                    name,
                    weight,
                    min(p["wirelen"] // weight, 65535),
                    p["payload_len"] > 0,
                    group,
                    peer == FOLDED,
                    gap,
                    change,
                    p["mqtt"],
                    flags,
                    p["src_mac"],
                )
            )
        if {a, b}.isdisjoint({FOLDED, NONE}) and src != dst:
            window.links[src, dst, *link] += weight

    def admit(self, src: int, dst: int, number: int) -> tuple[str, str]:
        def state(addr: int) -> str:
            return NONE if not addr else ("host" if addr in self.hosts else "unknown")

        a, b = state(src), state(dst)
        if a == "unknown":
            victim: Any = dst if b == "host" else (FOLDED if b == "unknown" else NONE)
            if self.free and self.new[number, "source", victim] < self.max_new:
                self.new[number, "source", victim] += 1
                self.hosts[src] = Host(self.free.pop(), number, number)
                a = "host"
                b = state(dst)
            else:
                a = FOLDED
        if b == "unknown":
            scanner: Any = src if a == "host" else a
            if self.free and self.new[number, "destination", scanner] < self.max_new:
                self.new[number, "destination", scanner] += 1
                self.hosts[dst] = Host(self.free.pop(), number, number)
                b = "host"
            else:
                b = FOLDED
        return a, b

    # ------------------------------------------------------------ slices

    def flush(self) -> None:
        self.close_before(self.clock // S + 1)

    def advance(self, now: int) -> None:
        self.clock = max(self.clock, now)
        self.close_before((self.clock - GRACE) // S)

    def close_before(self, number: int) -> None:
        if number <= self.first_open:
            return
        self.first_open = number
        for n in sorted(n for n in self.open if n < number):
            self.close(n, self.open.pop(n))
        wanted = min(self.max_new, self.max_hosts // 4) - len(self.free)
        idle = [
            (len(h.sides) == 2, h.last, h.slot, a) for a, h in self.hosts.items() if h.last < number
        ]
        gone = [a for *_, a in sorted(idle)[: max(wanted, 0)]]
        self.free += [self.hosts[a].slot for a in reversed(gone)]
        for a in gone:
            del self.hosts[a]
        self.counts["evicted_hosts"] += len(gone)
        dead = set(gone)
        self.pairs = {k: v for k, v in self.pairs.items() if dead.isdisjoint(k[:2])}
        self.services = {k: v for k, v in self.services.items() if dead.isdisjoint(k[:2])}
        self.macs = {k: v for k, v in self.macs.items() if k[0] not in dead}

    def close(self, number: int, window: Slice) -> None:
        def live(table: dict[Any, int]) -> dict[Any, int]:
            return {k: v for k, v in table.items() if v > number - HORIZON}

        pairs = {
            (s, d, what if what in ("ask", "tell") else "ip") for s, d, what, _ in window.links
        }
        self.pairs = live(self.pairs)
        fresh = pairs - set(self.pairs)
        self.pairs.update(dict.fromkeys(pairs, number))
        services = {k for k in window.links if k[2] in ("service", "refusal")}
        self.services = live(self.services)
        opened = {k for k in services - set(self.services) if k[2] == "service"}
        self.services.update(dict.fromkeys(services, number))
        self.macs = live(self.macs)
        self.macs.update(dict.fromkeys(window.claimed, number))
        for addr in sorted({a for a, _ in window.frames}):
            host = self.hosts[addr]
            for seen in window.frames.get((addr, "out"), [])[-1:]:
                host.shown_mac = seen.mac
            raw: Counter[str] = Counter()
            for side in ("out", "in"):
                raw.update(side_counts(side, window.frames.get((addr, side), [])))
            host.history = [h for h in host.history if h[0] > number - HORIZON]
            host.history.append((number, raw))
            long: Counter[str] = Counter()
            for _, counts in host.history:
                long.update(counts)
            values: dict[str, Any] = {}
            for name, count in raw.items():
                values[f"{name}_1s"] = count
            for name, count in long.items():
                values[f"{name}_60s"] = count
            values.update(distinct(addr, pairs, services, "_1s"))
            values["out_new_peers_1s"] = sum(s == addr and w == "ip" for s, d, w in fresh)
            values["in_new_peers_1s"] = sum(d == addr and w == "ip" for s, d, w in fresh)
            values["out_new_services_1s"] = sum(s == addr for s, _, _, _ in opened)
            values["in_new_services_1s"] = sum(d == addr for _, d, _, _ in opened)
            values.update(distinct(addr, set(self.pairs), set(self.services), "_60s"))
            values.update(self.unanswered(addr))
            mine = {m for a, m in self.macs if a == addr}
            values["arp_macs_60s"] = len(mine)
            values["arp_mac_addresses_60s"] = max(
                (sum(m == other for _, other in self.macs) for m in mine), default=0
            )
            values["mixed_macs_60s"] = sum(c["mac_changes"] > 0 for _, c in host.history)
            for side in ("out", "in"):
                frames = window.frames.get((addr, side), [])
                values.update(moments(side, frames))
                values[f"{side}_active_60s"] = sum(
                    c[f"{side}_packets"] > 0 for _, c in host.history
                )
            values.update(ratios(raw, long))
            self.rows.append(
                {
                    "number": number,
                    "address": addr,
                    "values": np.array(
                        [np.float32(float(values.get(n, 0))) for n in self.names], np.float32
                    ),
                    **self.context(addr, host, window, number),
                }
            )

    def unanswered(self, addr: int) -> dict[str, int]:
        ip = {(s, d) for s, d, w in self.pairs if w == "ip"}
        asks = {(s, d) for s, d, w in self.pairs if w == "ask"}
        tells = {(s, d) for s, d, w in self.pairs if w == "tell"}
        return {
            "out_unanswered_peers_60s": sum(s == addr and (d, s) not in ip for s, d in ip),
            "in_unanswered_peers_60s": sum(d == addr and (d, s) not in ip for s, d in ip),
            "out_arp_unanswered_60s": sum(s == addr and (d, s) not in tells for s, d in asks),
        }

    def context(  # noqa: C901  (one flat list of context is easier to check than five functions)
        self, addr: int, host: Host, window: Slice, number: int
    ) -> dict[str, Any]:
        def top(counts: Counter[Any], rank: Any) -> tuple[Any, int]:
            if not counts:
                return None, 0
            best = max(counts.values())
            return min((k for k, v in counts.items() if v == best), key=rank), best

        ins: Counter[int] = Counter()
        outs: Counter[int] = Counter()
        in_ports: Counter[int] = Counter()
        out_ports: Counter[int] = Counter()
        new: set[int] = set()
        for (s, d, what, port), n in window.links.items():
            if what in ("ask", "tell"):
                continue
            if d == addr:
                ins[s] += n
                if self.hosts[s].admitted == number:
                    new.add(s)
            if s == addr:
                outs[d] += n
            if what == "service":
                if d == addr:
                    in_ports[port] += n
                if s == addr:
                    out_ports[port] += n
        slot = lambda a: self.hosts[a].slot  # noqa: E731
        in_peer, in_packets = top(ins, slot)
        out_peer, out_packets = top(outs, slot)
        folded = sum(f.weight for f in window.frames.get((addr, "in"), []) if f.folded)
        return {
            "mac": host.shown_mac,
            "in_peer": in_peer or 0,
            "in_peer_packets": in_packets,
            "out_peer": out_peer or 0,
            "out_peer_packets": out_packets,
            "in_port": top(in_ports, int)[0] if in_ports else -1,
            "out_port": top(out_ports, int)[0] if out_ports else -1,
            "in_new_sources": len(new) + folded,
            "rival_mac": window.rivals.get(addr, 0),
        }


def side_counts(  # noqa: C901, PLR0912  (one flat list of definitions)
    side: str, frames: list[Seen]
) -> Counter[str]:
    """Plain sums of a side in a slice, by the feature's name without its horizon."""
    out: Counter[str] = Counter()

    def add(name: str, n: int) -> None:
        out[f"{side}_{name}"] += n

    renamed = {
        "syn": "tcp_syn",
        "synack": "tcp_synack",
        "rst": "tcp_rst",
        "ack": "tcp_ack",
        "odd": "tcp_odd",
        "echo_request": "echo_requests",
        "echo_reply": "echo_replies",
        "unreachable": "unreachables",
        "fragment": "fragments",
        "bad": "malformed",
        "dns_query": "dns_queries",
        "dns_response": "dns_responses",
        "tls_hello": "tls_hellos",
        "tls_alert": "tls_alerts",
        "tls_data": "tls_data",
        "arp_request": "arp_requests",
        "arp_reply": "arp_replies",
    }
    keep_alive = 0
    for f in frames:
        add("packets", f.weight)
        add("bytes", f.weight * f.size)
        if f.name in renamed:
            add(renamed[f.name], f.weight)
        if f.name in TCP_DATA:
            add("tcp_data", f.weight)
        if f.name in UDP_ANY:
            add("udp", f.weight)
        if f.folded:
            add("folded", f.weight)
        if f.group and side == "out":
            add("group_packets", f.weight)
        out["mac_changes"] += f.mac_change
        flags = f.flags
        for flag, name in (
            ("unasked", "arp_unasked"),
            ("contradiction", "arp_contradictions"),
            ("two_way", "arp_two_way"),
        ):
            add(name, int(flag in flags))
        if side == "out":
            add("arp_announcements", int("announcement" in flags))
        add("mqtt_frames", int(bool(f.mqtt)))
        for m in f.mqtt:
            n, kind = m["count"], m["packet_type"]
            add("mqtt_messages", n)
            add("mqtt_violations", n * (m["violation"] != 0))
            if kind == 1:
                add("mqtt_connects", n)
                keep_alive = max(keep_alive, m["keep_alive_s"])
            if kind == 2:
                add("mqtt_refused" if m["code"] > 0 else "mqtt_accepted", n)
            if kind == 3 and not m["to_server"]:
                add("mqtt_deliveries", n)
            elif kind == 3:
                add("mqtt_publishes", n)
                add("mqtt_publish_bytes", n * max(m["remaining_len"], 0))
                add("mqtt_dup", n * (m["flags"] & 8 != 0))
            if kind == 8:
                add("mqtt_subscribes", n)
                add("mqtt_wildcards", n * m["wildcard"])
            if kind == 14:
                add("mqtt_disconnects", n)
    out[f"{side}_mqtt_keep_alive_max_s"] = keep_alive
    return out


def spread(values: list[tuple[int, int]]) -> np.float32:
    """Root of the mean square distance from the whole-number mean; values with their weights."""
    n = sum(w for _, w in values)
    if not n:
        return np.float32(0)
    mean = sum(v * w for v, w in values) // n
    return np.float32(math.sqrt(sum(w * (v - mean) ** 2 for v, w in values) / n))


def share(top: int, bottom: int) -> np.float32:
    return np.float32(top / bottom) if bottom else np.float32(0)


def moments(side: str, frames: list[Seen]) -> dict[str, Any]:
    n = sum(f.weight for f in frames)
    gaps = [f.gap_us for f in frames if f.gap_us is not None]
    messages = sum(m["count"] for f in frames for m in f.mqtt)
    return {
        f"{side}_size_mean_1s": share(sum(f.size * f.weight for f in frames), n),
        f"{side}_size_std_1s": spread([(f.size, f.weight) for f in frames]),
        f"{side}_size_max_1s": max((f.size for f in frames), default=0),
        f"{side}_payload_share_1s": share(sum(f.weight for f in frames if f.payload), n),
        f"{side}_gap_mean_us_1s": share(sum(gaps), len(gaps)),
        f"{side}_gap_std_us_1s": spread([(g, 1) for g in gaps]),
        f"{side}_gap_max_us_1s": max(gaps, default=0),
        f"{side}_mqtt_per_packet_1s": share(messages, sum(bool(f.mqtt) for f in frames)),
    }


def distinct(addr: int, pairs: set[Any], services: set[Any], end: str) -> dict[str, int]:
    served = [(s, d, p) for s, d, w, p in services if w == "service"]
    refused = [(s, d, p) for s, d, w, p in services if w == "refusal"]
    on_peer = Counter(d for s, d, _ in served if s == addr)
    from_peer = Counter(s for s, d, _ in served if d == addr)
    return {
        f"out_peers{end}": sum(s == addr and w == "ip" for s, d, w in pairs),
        f"in_peers{end}": sum(d == addr and w == "ip" for s, d, w in pairs),
        f"out_arp_targets{end}": sum(s == addr and w == "ask" for s, d, w in pairs),
        f"out_services{end}": sum(on_peer.values()),
        f"in_services{end}": len({p for s, d, p in served if d == addr}),
        f"out_services_one_peer{end}": max(on_peer.values(), default=0),
        f"in_services_one_peer{end}": max(from_peer.values(), default=0),
        f"out_refused_services{end}": sum(s == addr for s, d, _ in refused),
        f"in_refused_services{end}": sum(d == addr for s, d, _ in refused),
    }


def ratios(raw: Counter[str], long: Counter[str]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for end, c in (("_1s", raw), ("_60s", long)):
        out[f"out_syn_answered{end}"] = share(c["in_tcp_synack"], c["out_tcp_syn"])
        out[f"in_syn_answered{end}"] = share(c["out_tcp_synack"], c["in_tcp_syn"])
        out[f"out_echo_answered{end}"] = share(c["in_echo_replies"], c["out_echo_requests"])
        out[f"out_data_per_syn{end}"] = share(c["out_tcp_data"], c["out_tcp_syn"])
        out[f"in_data_per_syn{end}"] = share(c["in_tcp_data"], c["in_tcp_syn"])
        out[f"out_mqtt_answered{end}"] = share(
            c["in_mqtt_accepted"] + c["in_mqtt_refused"], c["out_mqtt_connects"]
        )
        out[f"in_mqtt_answered{end}"] = share(
            c["out_mqtt_accepted"] + c["out_mqtt_refused"], c["in_mqtt_connects"]
        )
        out[f"out_in_packets{end}"] = share(c["out_packets"], c["in_packets"])
    return out
