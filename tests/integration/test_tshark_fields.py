"""Our columns equal tshark's, frame by frame, but for the definitions listed here (and in the docs)."""

import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.decode.decoder import PacketDecoder
from agent.records import LinkType, Reason
from tests.conftest import ROOT, SHARED
from tests.support import tshark
from tests.support.frames import batch_of
from tests.support.table_rows import NoStreams, rows_of

DOC = ROOT / "docs" / "decode-differences.md"
Row = dict[str, object]


@dataclass(frozen=True)
class Difference:
    """A column where tshark and we mean different things, and how to know such a frame."""

    column: str
    where: str
    ours: str
    tshark: str
    reason: str
    applies: Callable[[Row, object, tshark.Said], bool]


DIFFERENCES = (
    Difference(
        "dns",
        "UDP on a port other than 53, 5353, 5355",
        "no row",
        "DNS, by heuristics",
        "A guess by content would have to read the names.",
        lambda row, _want, _said: (
            row["dns"] is None and not {row["src_port"], row["dst_port"]} & {53, 5353, 5355}
        ),
    ),
    Difference(
        "dns",
        "the 12-byte header is cut by the capture",
        "no row",
        "the fields before the cut",
        "Half a header is not counted as a message.",
        lambda row, _want, _said: row["dns"] is None and row["payload_caplen"] < 12,
    ),
    Difference(
        "payload_len",
        "UDP's length is larger than the datagram that IP carries",
        "what IP carries",
        "what UDP says",
        "A fragment, or a length made up; sizes are counted from what was on the wire.",
        lambda row, want, _said: row["proto"] == 17 and want > row["payload_len"],
    ),
    Difference(
        "tls",
        "a record longer than its segment, which nothing recognises without reassembly",
        "the kind in its header",
        "TLS, without a content type",
        "We judge a segment by its first bytes and never join segments.",
        lambda row, want, said: (
            want == 0 and row["tls"] > 0 and "tls" in said["frame.protocols"][0].split(":")
        ),
    ),
)

DEFINITIONS = (
    ("all", "IP fragments, TCP segments and TLS records are not joined; tshark is asked not to."),
    ("all", "Headers inside tunnels (GRE, IP in IP) and inside ICMP errors are not read: the outermost count."),
    ("all", "A transport header counts if its fixed part is whole (TCP 20 bytes, UDP and ICMP 8)."),
    ("eth_type", "802.2 and SNAP payloads are an unknown type; the column holds their length."),
    ("vlan_id", "The outer tag; a tag that the kernel took out of the frame counts as the outermost."),
    ("ip_len", "With a length of 0 in the header (TSO, jumbogram): what the wire length leaves."),
    ("dns", "The response code of a query is the four bits as they stand; tshark shows none."),
    ("tls_hello", "Extensions are counted if the whole list is in the segment that opens with the hello."),
    ("nd", "The link-layer address is the source option of a solicitation, the target's of an advertisement."),
)  # fmt: skip


def table() -> str:
    """The page for the docs."""
    lines = ["| column | where | ours | tshark | why |", "|---|---|---|---|---|"]
    lines += [
        f"| `{d.column}` | {d.where} | {d.ours} | {d.tshark} | {d.reason} |" for d in DIFFERENCES
    ]
    lines += ["", "| column | definition |", "|---|---|"]
    lines += [f"| {name} | {words} |" for name, words in DEFINITIONS]
    return "\n".join(lines)


@pytest.fixture(scope="session")
def profile(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wireshark")
    tshark.write_profile(folder)
    return folder


def compare(capture: tshark.Capture, names: list[str], folder: Path, profile: Path) -> Counter[int]:
    """Fail on a difference that is not listed; how often each listed one occurs."""
    path = folder / f"link{capture.link_type}.pcap"
    with path.open("wb") as out:
        out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 18, capture.link_type))
        for frame, wire in zip(capture.frames, capture.wirelen, strict=True):
            out.write(struct.pack("<4I", 0, 0, len(frame), wire) + frame)
    said = tshark.ask(path, profile)
    batch = batch_of(capture.frames, capture.link_type, wirelen=capture.wirelen)
    rows = rows_of(PacketDecoder(streams=NoStreams()).decode(batch), batch.offset)
    used: Counter[int] = Counter()
    unlisted = []
    for name, row, words in zip(names, rows, said, strict=True):
        for column, want in tshark.columns(words).items():
            if row[column] == want or is_query_code(column, row[column], want):
                continue
            listed = [
                i
                for i, d in enumerate(DIFFERENCES)
                if d.column == column and d.applies(row, want, words)
            ]
            used.update(listed[:1])
            if not listed:
                reason = Reason(row["reason"]).name
                unlisted.append((name, column, row[column], want, reason, words["frame.protocols"]))
    assert not unlisted, unlisted[:10]
    return used


def is_query_code(column: str, got: object, want: object) -> bool:
    """Only responses have a code in tshark's words."""
    return (
        column == "dns"
        and isinstance(got, dict)
        and isinstance(want, dict)
        and not want["response"]
        and got | {"rcode": 0} == want | {"rcode": 0}
    )


def test_mixed_capture(tmp_path, profile):
    """The head of the benchmark's mixed capture: 50,000 frames of fifteen classes."""
    generator = SHARED / "perf" / "gen.py"
    if not generator.is_file():
        pytest.skip("the benchmark's generator is not beside the checkout")
    script = f"import runpy; runpy.run_path({str(generator)!r})['mixed'](50_000)"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, capture_output=True)
    capture = tshark.read_pcap(tmp_path / "mixed.pcap")
    assert len(capture.frames) == 50_000
    names = [f"mixed {i + 1}" for i in range(50_000)]
    assert not compare(capture, names, tmp_path, profile)


def test_real_captures(captures, tmp_path, profile):
    """All frames of the applications, scans and MQTT captures whose link type we read."""
    by_link: dict[int, tuple[tshark.Capture, list[str]]] = {}
    for path in sorted(
        p for kind in ("apps", "scans", "mqtt") for p in (captures / kind).iterdir()
    ):
        one = tshark.read_pcap(tshark.as_pcap(path, tmp_path))
        link_type = LinkType.RAW if one.link_type in tshark.RAW_NUMBERS else one.link_type
        joined, names = by_link.setdefault(link_type, (tshark.Capture(link_type, [], []), []))
        joined.frames.extend(one.frames)
        joined.wirelen.extend(one.wirelen)
        names += [f"{path.name} {i + 1}" for i in range(len(one.frames))]
    used: Counter[int] = Counter()
    for link_type in sorted(set(by_link) & set(LinkType)):
        used += compare(*by_link[link_type], tmp_path, profile)
    assert {1, 113, 101, 0, 228} <= set(by_link)
    never = [DIFFERENCES[i].where for i in range(len(DIFFERENCES)) if not used[i]]
    assert not never, "listed, but no capture shows it"


def test_the_list_stands_in_the_docs():
    assert table() in DOC.read_text()
