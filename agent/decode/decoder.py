"""All layers in order: a batch of frames in, a `PacketTable` out.

It never raises on what a frame contains and never reads a byte past a frame's captured length into a
field: a truncated or malformed frame gets a `Reason`, and what was decoded before it stays. Its cost
per frame is bounded whatever the frame contains.

In: `FrameBatch`; offsets in any order. Out: `PacketTable`, one row a frame.
Raises: `DecodeError` where a batch breaks its own contract. Remembers: counters, and MQTT's streams.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from agent.decode.arp import decode_arp
from agent.decode.dhcp import decode_dhcp
from agent.decode.dns import decode_dns
from agent.decode.gather import gather
from agent.decode.ip import decode_ip
from agent.decode.link import decode_link
from agent.decode.mqtt import MqttStreams
from agent.decode.nd import decode_nd
from agent.decode.tls import decode_tls
from agent.decode.transport import decode_transport
from agent.errors import DecodeError
from agent.records import PacketTable, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.decode.transport import Transport
    from agent.records import I32, I64, U8, U16, U32, U64, BoolArray, FrameBatch, MqttTable

HEAD_LEN = 64
"""Bytes read of every frame at once: Ethernet, IPv4, TCP and its first options; a cache line."""

SYN = 2
MQTT_PORTS = frozenset({1883})
MQTT_TLS_PORT = 8883
"""Where MQTT over TLS is registered (IANA): counted, so that health can say what share is encrypted."""


class Streams(Protocol):
    """What follows MQTT through the batches of one source: `agent.decode.mqtt.MqttStreams`."""

    def decode(  # noqa: PLR0913 - columns by name, not arguments to remember
        self,
        *,
        ts_ns: I64,
        src_hi: U64,
        src_lo: U64,
        dst_hi: U64,
        dst_lo: U64,
        src_port: U16,
        dst_port: U16,
        tcp_flags: U16,
        tcp_seq: U32,
        payload_off: I64,
        payload_len: I32,
        payload_caplen: I32,
        is_tcp: BoolArray,
        buffer: U8,
    ) -> MqttTable:
        """The control packets of a batch; every column is (n,)."""
        ...

    def counters(self) -> Mapping[str, int]:
        """Running totals."""
        ...


class PacketDecoder:
    """Decodes one capture source; `mqtt_ports` are those on which MQTT is assumed without a CONNECT.

    `salt`: random when live, so that nobody can make the streams' groups collide; fixed in a replay.
    """

    def __init__(
        self,
        *,
        mqtt_ports: frozenset[int] = MQTT_PORTS,
        salt: int = 0,
        streams: Streams | None = None,
    ) -> None:
        self._streams: Streams = (
            MqttStreams(ports=mqtt_ports, salt=salt) if streams is None else streams
        )
        self._ports = sorted(mqtt_ports)
        self._n_by_reason = np.zeros(len(Reason), np.int64)
        self._n_plain = 0
        self._n_encrypted = 0

    def decode(self, batch: FrameBatch) -> PacketTable:
        """One row a frame, in the batch's order."""
        check(batch)
        n = len(batch)
        head = gather(batch.buffer, batch.offset, HEAD_LEN)
        link = decode_link(batch, head)
        arp = decode_arp(batch, link)
        ip = decode_ip(batch, head, link)
        transport = decode_transport(batch, head, link, ip)
        tls, tls_hello = decode_tls(batch, transport)
        # Data in a SYN is no stream yet: without Fast Open the receiver drops it, and it is sent again.
        in_stream = (transport.tcp_flags & SYN) == 0
        mqtt = self._streams.decode(
            ts_ns=batch.ts_ns,
            src_hi=ip.src_hi,
            src_lo=ip.src_lo,
            dst_hi=ip.dst_hi,
            dst_lo=ip.dst_lo,
            src_port=transport.src_port,
            dst_port=transport.dst_port,
            tcp_flags=transport.tcp_flags,
            tcp_seq=transport.tcp_seq,
            payload_off=transport.payload_off,
            payload_len=transport.payload_len * in_stream,
            payload_caplen=transport.payload_caplen * in_stream,
            is_tcp=transport.is_tcp,
            buffer=batch.buffer,
        )
        self._n_by_reason += np.bincount(link.reason, minlength=len(Reason))
        self._n_plain += sum(_n_data_frames(transport, port) for port in self._ports)
        self._n_encrypted += _n_data_frames(transport, MQTT_TLS_PORT)
        caplen, wirelen = _with_kernel_tag(batch)
        return PacketTable(
            ts_ns=batch.ts_ns,
            caplen=caplen,
            wirelen=wirelen,
            reason=link.reason,
            eth_type=link.eth_type,
            vlan_id=link.vlan_id,
            src_mac=link.src_mac,
            dst_mac=link.dst_mac,
            family=ip.family,
            src_hi=ip.src_hi,
            src_lo=ip.src_lo,
            dst_hi=ip.dst_hi,
            dst_lo=ip.dst_lo,
            proto=ip.proto,
            ttl=ip.ttl,
            ip_len=ip.ip_len,
            fragment=ip.fragment,
            src_port=transport.src_port,
            dst_port=transport.dst_port,
            icmp_type=transport.icmp_type,
            icmp_code=transport.icmp_code,
            tcp_flags=transport.tcp_flags,
            tcp_seq=transport.tcp_seq,
            tcp_ack=transport.tcp_ack,
            tcp_window=transport.tcp_window,
            tcp_mss=transport.tcp_mss,
            tcp_wscale=transport.tcp_wscale,
            tcp_timestamp=transport.tcp_timestamp,
            payload_off=transport.payload_off,
            payload_len=transport.payload_len,
            payload_caplen=transport.payload_caplen,
            segments=transport.segments,
            tls=tls,
            outgoing=np.zeros(n, np.bool_) if batch.outgoing is None else batch.outgoing,
            arp=arp,
            nd=decode_nd(batch, ip, transport),
            dns=decode_dns(batch, transport),
            dhcp=decode_dhcp(batch, transport),
            tls_hello=tls_hello,
            mqtt=mqtt,
        )

    def counters(self) -> Mapping[str, int]:
        """Frames in all, by `Reason` (`reason_truncated_l3` ...), with MQTT; MQTT's own as `mqtt_...`."""
        by_reason = {f"reason_{r.name.lower()}": int(self._n_by_reason[r]) for r in Reason}
        return {
            "frames": int(self._n_by_reason.sum()),
            **by_reason,
            "mqtt_plain_frames": self._n_plain,
            "mqtt_encrypted_frames": self._n_encrypted,
            **{f"mqtt_{name}": total for name, total in self._streams.counters().items()},
        }


def _n_data_frames(transport: Transport, port: int) -> int:
    """TCP frames with a payload from or to a port."""
    at_port = (transport.src_port == port) | (transport.dst_port == port)
    at_port &= transport.is_tcp
    at_port &= transport.payload_len > 0
    return int(np.count_nonzero(at_port))


def check(batch: FrameBatch) -> None:
    """Raise `DecodeError` unless every frame lies inside the buffer and every column has a row for it."""
    n = len(batch)
    optional = (batch.vlan_tci, batch.outgoing)
    columns = (batch.offset, batch.caplen, batch.wirelen, *(c for c in optional if c is not None))
    if any(len(column) != n for column in columns):
        raise DecodeError("the columns of a batch differ in length")
    if batch.buffer.dtype != np.uint8 or not batch.buffer.flags.c_contiguous:
        raise DecodeError("the buffer of a batch is not a contiguous run of bytes")
    if n == 0:
        return
    if int(batch.offset.min()) < 0 or int(batch.caplen.min()) < 0:
        raise DecodeError("a frame of a batch has a negative offset or length")
    if int((batch.offset + batch.caplen).max()) > len(batch.buffer):
        raise DecodeError("a frame of a batch ends outside its buffer")
    if bool((batch.wirelen < batch.caplen).any()):
        raise DecodeError("a frame of a batch was captured longer than it was on the wire")


def _with_kernel_tag(batch: FrameBatch) -> tuple[I32, I32]:
    """Lengths with the 4 bytes of a VLAN tag that the kernel took out, so live equals a file."""
    if batch.vlan_tci is None:
        return batch.caplen, batch.wirelen
    tag = (batch.vlan_tci >= 0) * np.int32(4)
    return batch.caplen + tag, batch.wirelen + tag
