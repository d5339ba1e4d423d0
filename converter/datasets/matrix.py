"""The feature matrix of one recorded run with its labels, as one compressed file: what training starts from.

A row is a host and a 1 s slice, as the agent's own extractor made it. Labels by docs/decisions/0002:

- kind K: the host is attacker or victim of an episode of K, the slice holds at least 1 hostile frame that the host
  sent or received, and the 60 slices ending with it at least 3;
- edge: hostile frames touch the host in these 60 slices, but the row is not of a kind: too few, none in this slice,
  a spoofed source or a decoy that is neither attacker nor victim, or an attacker whose frames bear other addresses,
  so that its own row cannot show them. Not trained on; reported apart;
- benign: everybody else.

An ARP packet belongs to the address that it claims and to the one that it tells, as in the features: a forger's own
row is edge. Nothing here is ever a model's input but `values`.

In and out: `RUN.npz`. Raises: `DatasetError` on a file that is not one.
"""

from __future__ import annotations

import io
import ipaddress
import zipfile
import zlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from agent.records import V4_MAPPED_LO, FeatureMatrix, Subjects
from converter.datasets.labels import DatasetError, Episode, hostile_frames

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from agent.features.schema import Schema
    from agent.records import I64, U64, BoolArray, PacketTable

    Host = tuple[int, int]

KINDS = (
    "benign",
    "tcp_syn_flood",
    "tcp_flood",
    "udp_flood",
    "icmp_flood",
    "mqtt_connect_flood",
    "mqtt_publish_flood",
    "mqtt_malformed",
    "ping_sweep",
    "port_scan",
    "os_scan",
    "vulnerability_scan",
    "arp_spoofing",
)
"""Class numbers of `RunMatrix.kind`; only added to, at the end."""

GROUPS = {
    "flood": ("tcp_syn_flood", "tcp_flood", "udp_flood", "icmp_flood"),
    "recon": ("ping_sweep", "port_scan", "os_scan", "vulnerability_scan"),
    "mqtt": ("mqtt_connect_flood", "mqtt_publish_flood", "mqtt_malformed"),
    "spoofing": ("arp_spoofing",),
}
"""CONTRACTS, "Kinds, variants, groups"."""

SLICE_NS = 1_000_000_000
HORIZON_SLICES = 60
MIN_HOSTILE = 3


class RunInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Where a matrix came from."""

    run: str
    plan: str
    schema_id: str
    schema_digest: str
    capture_sha256: str
    frames: int
    duration_s: float
    offloads: bool
    background_load: bool
    episodes: list[Episode]
    thinned: dict[str, float] = {}
    """Share of rows kept, by what was thinned; empty: every row is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMatrix:
    """Rows of one run, ordered by (slice, host); n rows."""

    info: RunInfo
    matrix: FeatureMatrix
    kind: NDArray[np.int8]
    """(n,) place in `KINDS`; 0 for benign and for edge rows."""
    episode: NDArray[np.int16]
    """(n,) place in `info.episodes` of the episode that the row is of, or -1."""
    edge: BoolArray

    def __len__(self) -> int:
        return len(self.kind)


class HostileCounts:
    """Hostile frames by episode, host and slice, added up table by table."""

    def __init__(self, episodes: Sequence[Episode]) -> None:
        self.episodes = episodes
        self._counts: list[dict[Host, dict[int, int]]] = [{} for _ in episodes]
        self._by_mac: list[dict[int, int]] = [{} for _ in episodes]

    def add(self, table: PacketTable) -> None:
        """Count the frames of one table."""
        ends: tuple[U64, U64, U64, U64] | None = None
        for number, episode in enumerate(self.episodes):
            rows = np.flatnonzero(hostile_frames(table, episode))
            if not len(rows):
                continue
            ends = _ends(table) if ends is None else ends
            slices = table.ts_ns[rows] // SLICE_NS
            for place, count in zip(*np.unique(slices, return_counts=True), strict=True):
                into = self._by_mac[number]
                into[int(place)] = into.get(int(place), 0) + int(count)
            for hi, lo in (ends[:2], ends[2:]):
                self._add_side(number, hi[rows], lo[rows], slices)

    def _add_side(self, number: int, hi: U64, lo: U64, slices: I64) -> None:
        keys = np.stack((hi, lo, slices.astype(np.uint64)), axis=1)
        distinct, counts = np.unique(keys, axis=0, return_counts=True)
        for (h, low, place), count in zip(distinct.tolist(), counts.tolist(), strict=True):
            if h or low:
                into = self._counts[number].setdefault((h, low), {})
                into[place] = into.get(place, 0) + count

    def label(self, matrix: FeatureMatrix) -> tuple[NDArray[np.int8], NDArray[np.int16], BoolArray]:
        """(n,) kind, episode and edge of each row; where two episodes claim a row, the louder in its slice wins."""
        n = len(matrix)
        kind, episode_of = np.zeros(n, np.int8), np.full(n, -1, np.int16)
        edge, loudest = np.zeros(n, np.bool_), np.zeros(n, np.int64)
        rows_of = _rows_by_host(matrix)
        slices = matrix.start_ns // SLICE_NS
        for number, episode in enumerate(self.episodes):
            attackers = {host_of(text) for text in episode.attackers}
            listed = attackers | {host_of(text) for text in episode.victims}
            by_host = {host: dict(counts) for host, counts in self._counts[number].items()}
            for host in attackers:
                forges = (
                    episode.kind == "arp_spoofing"
                )  # what it sends by its own address is not the attack
                own = {} if forges else by_host.get(host, {})
                by_host[host] = {s: own.get(s, 0) for s in self._by_mac[number] | own}
            for host, counts in by_host.items():
                rows = rows_of.get(host)
                if rows is None:
                    continue
                touched = self._by_mac[number] if host in attackers else counts
                in_slice, in_horizon = _within(counts, slices[rows])
                is_kind = (in_slice >= 1) & (in_horizon >= MIN_HOSTILE) & (host in listed)
                edge[rows] |= _within(touched, slices[rows])[1] >= 1
                won = rows[is_kind & (in_slice > loudest[rows])]
                kind[won], episode_of[won] = KINDS.index(episode.kind), number
                loudest[rows] = np.where(
                    is_kind, np.maximum(loudest[rows], in_slice), loudest[rows]
                )
        edge &= kind == 0
        return kind, episode_of, edge


def save_run(path: Path, run: RunMatrix) -> None:
    """Write one run; the same rows give the same bytes."""
    matrix = run.matrix
    arrays: dict[str, NDArray[Any]] = {
        "info": np.frombuffer(msgspec.json.encode(run.info), np.uint8),
        # A feature's values stand together: they compress to a third of what rows do.
        "values": np.ascontiguousarray(matrix.values.T),
        "start_ns": matrix.start_ns,
        "kind": run.kind,
        "episode": run.episode,
        "edge": run.edge,
        **{f"subject_{f.name}": getattr(matrix.subjects, f.name) for f in fields(Subjects)},
    }
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)  # type: ignore[arg-type]  # its stub has no room for names
    path.write_bytes(out.getvalue())


def load_run(path: Path, schema: Schema) -> RunMatrix:
    """Read one run; one of another schema is refused."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        info = msgspec.json.decode(arrays["info"].tobytes(), type=RunInfo)
        subjects = Subjects(**{f.name: arrays[f"subject_{f.name}"] for f in fields(Subjects)})
        values, start_ns = np.ascontiguousarray(arrays["values"].T), arrays["start_ns"]
        labels = (arrays["kind"], arrays["episode"], arrays["edge"])
    except (
        OSError,
        ValueError,
        KeyError,
        zipfile.BadZipFile,
        zlib.error,
        msgspec.DecodeError,
    ) as e:
        raise DatasetError(f"{path}: not a run's matrix: {e}") from None
    if (info.schema_id, info.schema_digest) != (schema.id, schema.digest):
        raise DatasetError(
            f"{path}: of schema {info.schema_id} {info.schema_digest}, this version has {schema.id} "
            f"{schema.digest}: make it again with `wardwatch-convert dataset`"
        )
    matrix = FeatureMatrix(
        schema=schema,
        values=values,
        subjects=subjects,
        start_ns=start_ns,
        end_ns=start_ns + SLICE_NS,
    )
    return RunMatrix(info=info, matrix=matrix, kind=labels[0], episode=labels[1], edge=labels[2])


def joined(parts: Sequence[FeatureMatrix], schema: Schema) -> FeatureMatrix:
    """Matrices after each other."""
    return FeatureMatrix(
        schema=schema,
        values=np.concatenate([p.values for p in parts]),
        subjects=Subjects(
            **{
                f.name: np.concatenate([getattr(p.subjects, f.name) for p in parts])
                for f in fields(Subjects)
            }
        ),
        start_ns=np.concatenate([p.start_ns for p in parts]),
        end_ns=np.concatenate([p.end_ns for p in parts]),
    )


def _ends(table: PacketTable) -> tuple[U64, U64, U64, U64]:
    """(n,) source hi, lo, destination hi, lo of each frame, as the features see it."""
    src_hi, src_lo = table.src_hi.copy(), table.src_lo.copy()
    dst_hi, dst_lo = table.dst_hi.copy(), table.dst_lo.copy()
    mapped = np.uint64(V4_MAPPED_LO)
    for ip, hi, lo in (
        (table.arp.sender_ip, src_hi, src_lo),
        (table.arp.target_ip, dst_hi, dst_lo),
    ):
        hi[table.arp.row] = 0
        lo[table.arp.row] = np.where(ip != 0, ip.astype(np.uint64) | mapped, np.uint64(0))
    return src_hi, src_lo, dst_hi, dst_lo


def host_of(text: str) -> Host:
    """(hi, lo) of an address in text, as in `agent.records`."""
    address = ipaddress.ip_address(text)
    if address.version == 4:
        return 0, V4_MAPPED_LO | int(address)
    return int(address) >> 64, int(address) & 0xFFFF_FFFF_FFFF_FFFF


def _rows_by_host(matrix: FeatureMatrix) -> dict[Host, I64]:
    keys = np.stack((matrix.subjects.hi, matrix.subjects.lo), axis=1)
    distinct, which = np.unique(keys, axis=0, return_inverse=True)
    order = np.argsort(which.ravel(), kind="stable")
    ends = np.cumsum(np.bincount(which.ravel(), minlength=len(distinct)))[:-1]
    groups = np.split(order, ends)
    return {(int(hi), int(lo)): rows for (hi, lo), rows in zip(distinct, groups, strict=True)}


def _within(counts: dict[int, int], slices: I64) -> tuple[I64, I64]:
    """Frames in each of `slices`, and in the horizon that ends with it."""
    places = np.array(sorted(counts), np.int64)
    running = np.concatenate(([0], np.cumsum([counts[p] for p in places.tolist()]))).astype(
        np.int64
    )

    def up_to(last: I64) -> I64:
        return running[np.searchsorted(places, last, side="right")]

    here = up_to(slices)
    return here - up_to(slices - 1), here - up_to(slices - HORIZON_SLICES)
