"""The records that the stages hand to each other, and nothing else: no logic beyond their shapes.

    capture -> FrameBatch -> decode -> PacketTable -> features -> FeatureMatrix
            -> score -> Verdicts -> alert -> Alert -> uplink

All but `Alert` are structs of numpy arrays of equal length `n`, one row a frame (or a control
packet, or a host and window). Arrays are read-only by agreement: a stage makes new ones. There is
no per-packet Python object on the IP path.

Addresses are pairs of uint64 (`hi`, `lo`), big-endian halves of 128 bits: IPv6 as it is, IPv4 as
`::ffff:a.b.c.d`, so `hi == 0 and lo >> 32 == 0xffff`; a MAC address, where a machine has shown no IP
address, as `hi == MAC_HI` and `lo` = its 48 bits (`ffff:ffff:ffff:ffff::/64` is never a host).
All zero means "no address".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from agent.features.schema import Schema

    BoolArray = NDArray[np.bool_]
    U8 = NDArray[np.uint8]
    U16 = NDArray[np.uint16]
    U32 = NDArray[np.uint32]
    U64 = NDArray[np.uint64]
    I8 = NDArray[np.int8]
    I16 = NDArray[np.int16]
    I32 = NDArray[np.int32]
    I64 = NDArray[np.int64]
    F32 = NDArray[np.float32]

V4_MAPPED_LO = 0xFFFF_0000_0000
"""The upper bits of `lo` in an IPv4-mapped address: `lo = V4_MAPPED_LO | ipv4`."""

MAC_HI = 0xFFFF_FFFF_FFFF_FFFF
"""`hi` of an address that is a MAC address; `lo` holds the 48 bits."""


class LinkType(IntEnum):
    """Link types of capture files that this version reads (tcpdump.org/linktypes.html)."""

    NULL = 0
    ETHERNET = 1
    RAW_BSD_12 = 12  # DLT_RAW as some systems wrote it into files
    RAW_BSD_14 = 14
    RAW = 101
    LOOP = 108
    LINUX_SLL = 113
    IPV4 = 228
    IPV6 = 229
    LINUX_SLL2 = 276


class Placement(StrEnum):
    """Where the gateway stands: it only watches, or carries the traffic itself."""

    TAP = "tap"
    GATEWAY = "gateway"


@dataclass(slots=True, frozen=True, kw_only=True)
class FrameBatch:
    """Frames as captured. Made by capture; frame i is `buffer[offset[i]:offset[i]+caplen[i]]`."""

    ts_ns: I64
    """(n,) event time, nanoseconds since the epoch (files) or re-based monotonic (live); may go backwards."""
    offset: I64
    """(n,) where the frame's first byte stands in `buffer`. Not necessarily ascending."""
    caplen: I32
    """(n,) bytes captured; `offset + caplen <= len(buffer)` always holds."""
    wirelen: I32
    """(n,) bytes on the wire, at least caplen; GRO/TSO frames are as large as the kernel made them."""
    buffer: U8
    """(size,) read-only bytes: a mapped file, or a copied ring block. Never read past offset+caplen."""
    link_type: int
    """One for the whole batch; a `LinkType`."""
    vlan_tci: I32 | None = None
    """(n,) outer VLAN TCI that the kernel took out of the frame (live only); -1 where there was none."""
    outgoing: BoolArray | None = None
    """(n,) True where this machine sent the frame (placement `gateway`); None: direction unknown."""
    rssi_dbm: I8 | None = None
    """(n,) signal, radio captures only."""
    channel: U8 | None = None
    """(n,) radio channel, radio captures only."""

    def __len__(self) -> int:
        return len(self.ts_ns)


class Reason(IntEnum):
    """Why a frame could not be decoded further than it was. 0 is: decoded as far as we go."""

    OK = 0
    TRUNCATED_LINK = 1  # captured bytes end inside the link header
    TRUNCATED_L3 = 2
    TRUNCATED_L4 = 3
    UNKNOWN_ETHERTYPE = 4  # a link payload that we do not read (STP, LLDP, LLC ...)
    BAD_IP_VERSION = 5
    BAD_IP_HEADER = 6  # header length below 20, total length below the header's
    BAD_L4_HEADER = 7  # TCP data offset below 20 or past the datagram, UDP length below 8
    UNKNOWN_PROTOCOL = 8  # an IP protocol that we do not read
    FRAGMENT = 9  # not the first fragment: no transport header
    BAD_ARP = 10
    TOO_MANY_HEADERS = 11  # more VLAN tags or IPv6 extension headers than we follow
    BAD_LINK_TYPE = 12


class TlsRecord(IntEnum):
    """What a TCP payload opens with, seen as TLS (RFC 8446 5.1); 0: not TLS at its first byte."""

    NONE = 0
    CLIENT_HELLO = 1
    SERVER_HELLO = 2
    HANDSHAKE_OTHER = 3
    ALERT = 4
    APPLICATION_DATA = 5
    CHANGE_CIPHER_SPEC = 6


@dataclass(slots=True, frozen=True, kw_only=True)
class ArpTable:
    """ARP packets of a batch (Ethernet/IPv4 only); m rows."""

    row: I64
    """(m,) row in the PacketTable, ascending."""
    op: U16
    """(m,) 1 request, 2 reply, others as they came."""
    sender_mac: U64
    sender_ip: U32
    target_mac: U64
    target_ip: U32


@dataclass(slots=True, frozen=True, kw_only=True)
class NdTable:
    """IPv6 neighbour discovery (RFC 4861): solicitations (135) and advertisements (136); m rows."""

    row: I64
    icmp_type: U8
    target_hi: U64
    target_lo: U64
    link_mac: U64
    """(m,) the source or target link-layer address option; 0 where there is none."""
    flags: U8
    """(m,) advertisement: 4 router, 2 solicited, 1 override."""


@dataclass(slots=True, frozen=True, kw_only=True)
class DnsTable:
    """DNS and mDNS over UDP, by header only (RFC 1035 4.1.1); no name is ever read. m rows."""

    row: I64
    response: BoolArray
    opcode: U8
    rcode: U8
    n_questions: U16
    n_answers: U16


@dataclass(slots=True, frozen=True, kw_only=True)
class DhcpTable:
    """DHCPv4 by header and option 53 (RFC 2131, 2132); m rows."""

    row: I64
    op: U8
    """(m,) 1 BOOTREQUEST, 2 BOOTREPLY."""
    message_type: U8
    """(m,) option 53; 0 where absent or not among the first options captured."""


@dataclass(slots=True, frozen=True, kw_only=True)
class TlsTable:
    """TLS ClientHellos by shape, from the segment that opens with one; the SNI is never kept. m rows."""

    row: I64
    record_version: U16
    hello_version: U16
    n_ciphers: U16
    n_extensions: U16
    """(m,) 0 where the segment ends before they are counted."""
    hello_len: I32


class MqttType(IntEnum):
    """MQTT control packet types (MQTT 5.0, 2.1.2)."""

    RESERVED = 0
    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14
    AUTH = 15


class MqttViolation(IntEnum):
    """How a control packet breaks the protocol; judged only on a synchronised flow."""

    NONE = 0
    REMAINING_LENGTH = 1  # a fifth length byte (2.2.3 in 3.1.1, 1.5.5 in 5.0)
    RESERVED_TYPE = 2  # type 0, or 15 below MQTT 5
    FLAGS = 3  # fixed-header flags other than the type's
    QOS = 4  # QoS 3
    PROTOCOL_NAME = 5
    PROTOCOL_LEVEL = 6
    CONNECT_FLAGS = 7  # reserved bit, will flags without a will, password without user below 5
    FIRST_NOT_CONNECT = 8
    SECOND_CONNECT = 9
    TOPIC_WILDCARD = 10  # + or # in the topic of a PUBLISH
    TOPIC_LENGTH = 11  # a string longer than its packet
    EMPTY_TOPIC = 12
    EMPTY_SUBSCRIBE = 13
    PACKET_ID_ZERO = 14
    BODY_LENGTH = 15  # a body too short or too long for its type
    WRONG_DIRECTION = 16  # a client's packet from the server, or the reverse
    STRING = 17  # not UTF-8, or U+0000


@dataclass(slots=True, frozen=True, kw_only=True)
class MqttTable:
    """MQTT control packets of a batch, in stream order per flow; m rows.

    A row stands for `count` equal control packets of one flow that follow each other in one frame
    (a run, e.g. of PINGREQ); mostly 1. A packet belongs to the frame in which enough of it was
    captured to know its fields (its header bytes), so once only, however it was cut or resent.
    """

    row: I64
    """(m,) row in the PacketTable, ascending."""
    packet_type: U8
    """(m,) `MqttType`."""
    flags: U8
    """(m,) low four bits of the first byte; DUP 8, QoS 6, RETAIN 1 for PUBLISH."""
    remaining_len: I32
    """(m,) bytes after the fixed header, as declared; -1 where malformed."""
    count: I32
    """(m,) how many equal packets this row stands for, at least 1."""
    extrapolated: BoolArray
    """(m,) True where `count` was estimated from a period and not walked to its end."""
    to_server: BoolArray
    """(m,) True from client to broker."""
    level: U8
    """(m,) protocol level of a CONNECT (3: 3.1, 4: 3.1.1, 5: 5.0), else of the flow if known, else 0."""
    connect_flags: U8
    """(m,) CONNECT only, else 0."""
    keep_alive_s: I32
    """(m,) CONNECT only, else -1."""
    code: I16
    """(m,) reason or return code (CONNACK, PUBACK family in MQTT 5, first of SUBACK, DISCONNECT); -1: none."""
    topic_len: I32
    """(m,) PUBLISH: length of the topic; SUBSCRIBE: of the first filter; else -1. The topic is never kept."""
    wildcard: BoolArray
    """(m,) a SUBSCRIBE with + or # in a filter."""
    violation: U8
    """(m,) `MqttViolation`; the first one found."""
    synchronised: BoolArray
    """(m,) whether the flow was in step when this packet was read."""


@dataclass(slots=True, frozen=True, kw_only=True)
class PacketTable:
    """Decoded header fields, one row a frame of the batch, in the batch's order."""

    ts_ns: I64
    caplen: I32
    wirelen: I32
    reason: U8
    """(n,) `Reason`."""
    eth_type: U16
    """(n,) after VLAN tags (or the SLL protocol); below 1536 an 802.3 length; 0 for raw IP that is neither."""
    vlan_id: I16
    """(n,) outer VLAN id, -1 untagged; a tag in line and one taken out by the kernel look the same."""
    src_mac: U64
    dst_mac: U64
    """(n,) 48 bits; 0 where the link has none (raw, null; SLL has no destination)."""
    family: U8
    """(n,) 4, 6, or 0 where there is no IP header."""
    src_hi: U64
    src_lo: U64
    dst_hi: U64
    dst_lo: U64
    """(n,) IP addresses; all 0 without an IP header (ARP's are in `arp`)."""
    proto: U8
    """(n,) IP protocol after extension headers; 255 without an IP header."""
    ttl: U8
    ip_len: I32
    """(n,) total length as the IP header says (IPv6: payload length + 40); 0 without IP."""
    fragment: U8
    """(n,) 0 whole, 1 first fragment, 2 a later one."""
    src_port: U16
    dst_port: U16
    """(n,) TCP and UDP only, else 0."""
    icmp_type: U8
    icmp_code: U8
    """(n,) ICMP and ICMPv6 only, else 255."""
    tcp_flags: U16
    """(n,) the 12 bits of RFC 9293: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128, AE 256 ..."""
    tcp_seq: U32
    tcp_ack: U32
    tcp_window: U16
    tcp_mss: I32
    """(n,) MSS option, -1 where absent."""
    tcp_wscale: I16
    """(n,) window scale option, -1 where absent."""
    tcp_timestamp: BoolArray
    """(n,) timestamps option present."""
    payload_off: I64
    """(n,) absolute offset in the batch's buffer of the transport payload; 0 without one."""
    payload_len: I32
    """(n,) transport payload bytes on the wire (from the IP length, at most what wirelen allows)."""
    payload_caplen: I32
    """(n,) of these, how many were captured."""
    segments: I32
    """(n,) wire packets that this frame stands for; above 1 only for GRO/TSO frames (estimated from the MSS)."""
    tls: U8
    """(n,) `TlsRecord` that the TCP payload opens with."""
    outgoing: BoolArray
    """(n,) as in the batch; all False where unknown."""
    arp: ArpTable
    nd: NdTable
    dns: DnsTable
    dhcp: DhcpTable
    tls_hello: TlsTable
    mqtt: MqttTable

    def __len__(self) -> int:
        return len(self.ts_ns)


@dataclass(slots=True, frozen=True, kw_only=True)
class Subjects:
    """Whom each row of a FeatureMatrix is about, and the context that alerts need. Never a model's input."""

    hi: U64
    lo: U64
    """(n,) the host's address."""
    mac: U64
    """(n,) the MAC address it was last seen with as a source; 0 unknown."""
    in_peer_hi: U64
    in_peer_lo: U64
    """(n,) the peer that sent it the most packets in the slice; 0 where none did or it is folded away."""
    in_peer_packets: I64
    out_peer_hi: U64
    out_peer_lo: U64
    """(n,) the peer that it sent the most packets to in the slice."""
    out_peer_packets: I64
    in_port: I32
    """(n,) the own port most addressed in the slice, -1 none."""
    out_port: I32
    """(n,) the remote port that it addressed most in the slice, -1 none."""
    in_new_sources: I64
    """(n,) sources first seen in this slice that addressed this host (folded ones included, counted by packet)."""
    rival_mac: U64
    """(n,) the MAC whose ARP or ND claims contradict what was known of this host's address, 0 none."""
    probed_hi: U64
    probed_lo: U64
    """(n,) the host on which it addressed the most ports in the last 60 slices, if several; 0 none."""


@dataclass(slots=True, frozen=True, kw_only=True)
class FeatureMatrix:
    """Windowed features, one row per host and slice, ordered by (end_ns, subject's address)."""

    schema: Schema
    values: F32
    """(n, n_features) finite."""
    subjects: Subjects
    start_ns: I64
    end_ns: I64
    """(n,) the 1 s slice [start, end) that the row ends with; the long horizon is the 60 slices ending there."""

    def __len__(self) -> int:
        return len(self.start_ns)


class Endpoint(NamedTuple):
    """An address as in this module's header; (0, 0) is nobody."""

    hi: int
    lo: int


NOBODY = Endpoint(0, 0)


@dataclass(slots=True, frozen=True, kw_only=True)
class Fact:
    """One number behind a verdict."""

    feature: str
    """A feature's name in the schema."""
    value: float
    limit: float | None = None
    """What a rule compared it with; None for a model's feature."""
    normal: float | None = None
    """What is normal, where it is known."""
    normal_of: str = "device"
    """Whose: `device`, this device's own; `training`, the benign rows that the model was trained on."""
    about: str = ""
    """Whose figure it is: the `attacker`'s or the `victim`'s; empty: of the one device that there is."""


class Why(Protocol):
    """What moved a verdict, worked out only when somebody is told of it."""

    def facts(self) -> tuple[Fact, ...]:
        """The few that count, the most telling first."""
        ...


@dataclass(slots=True, frozen=True, kw_only=True)
class Verdict:
    """One flagged row of one detector. Few: only rows above a threshold become one."""

    detector: str
    """`boosting`, `rules` or `baseline`."""
    kind: str
    """A detection id of ALERTS.md."""
    subject: Endpoint
    attacker: Endpoint
    """NOBODY where it is not known or many are spoofed."""
    victim: Endpoint
    """NOBODY where there are many (a sweep)."""
    spoofed: bool
    distributed: bool
    start_ns: int
    end_ns: int
    margin: int
    """The integer margin (boosting), or the figure that the rule compared, rounded down."""
    threshold: int
    score: float
    """In [0, 1], rounded to 4 digits, for display only."""
    count: int
    """Hostile packets (or messages) that this row saw, at least 1."""
    ports: tuple[int, ...]
    facts: tuple[Fact, ...]
    count_window_s: int = 1
    """Over how long `count` counts, ending with the row: 1 the slice, 60 the long horizon."""
    why: Why | None = field(default=None, compare=False, repr=False)
    """Better facts than `facts`, at a cost; None: `facts` are all there are."""


class Detector(Protocol):
    """What judges a feature matrix. Handed to the pipeline; keeps no clock of its own."""

    name: str

    def judge(self, matrix: FeatureMatrix) -> Sequence[Verdict]:
        """Verdicts for the rows that are flagged, in the matrix's order."""
        ...


@dataclass(slots=True, frozen=True, kw_only=True)
class Device:
    """What the site file says of a device. The only names that may leave the gateway."""

    asset_tag: str
    device_class: str
    """`infusion_pump`, `patient_monitor`, `broker` ...; the site's own words."""
    criticality: str
    """`low`, `normal` or `critical` (what harm follows when it fails)."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Alert:
    """One event of a finding's life: JSON-safe numbers and words only, addresses still raw.

    `alert.finding` turns it into the wire format, where addresses become pseudonyms.
    """

    activity: str
    """`create`, `update` or `close`."""
    uid: str
    """UUIDv5(gateway, dedupe key, start_ns): the same for one attack."""
    kind: str
    severity: str
    """`info low medium high critical`."""
    highest_severity: str
    """The highest this finding has had; it stands in the topic."""
    detectors: tuple[str, ...]
    attacker: Endpoint
    victim: Endpoint
    spoofed: bool
    distributed: bool
    start_ns: int
    """Event time of the first hostile slice."""
    last_ns: int
    """Event time of the latest one's end."""
    time_ns: int
    """Event time at which this event was made."""
    count: int
    source: str
    """Name of the capture source (config `[[source]] name`, or the file's name in a replay)."""
    source_kind: str
    """`ip`, `ble` or `wifi`."""
    score: float
    margin: int
    threshold: int
    ports: tuple[int, ...]
    facts: tuple[Fact, ...]
    previous_uid: str | None = None
    """The closed finding that this one follows."""
    storm_counts: Mapping[str, int] | None = None
    """Storm findings only: exact number of suppressed events per detection id."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What the service adds (drops, shed share, clock state); JSON-safe."""
