"""A packet socket that only listens, and what the system knows about the interface behind it.

Nothing here or in the files that use it ever sends: the socket is bound to receive, and neither it
nor its descriptor leaves these files.

In: an interface's name. Out: a bound, non-blocking AF_PACKET socket; facts and counters of the interface.
Raises: CaptureError (NO_INTERFACE, INTERFACE_DOWN, PERMISSION, LINK_TYPE, UNREADABLE), one line each; those that
waiting can mend are `retriable`.
Remembers: nothing but the socket's own state in the kernel.
Source: packet(7), netdevice(7); linux/if_packet.h.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.capture.link_types import ARPHRD_LOOPBACK, of_interface
from agent.errors import CaptureError, CaptureReason

if TYPE_CHECKING:
    from agent.records import LinkType

ETH_P_ALL = 3
SOL_PACKET = 263
PACKET_ADD_MEMBERSHIP, PACKET_RX_RING, PACKET_STATISTICS, PACKET_COPY_THRESH = 1, 5, 6, 7
PACKET_AUXDATA, PACKET_VERSION, PACKET_IGNORE_OUTGOING = 8, 10, 23
PACKET_MR_PROMISC = 1
PACKET_OUTGOING = 4
"""sll_pkttype of a frame that this machine sent."""
SO_RCVBUFFORCE = 33
SIOCGIFFLAGS, SIOCGIFHWADDR = 0x8913, 0x8927
IFF_UP = 1
IFNAMSIZ = 16
GONE = (errno.ENODEV, errno.ENXIO)
REFUSED = (errno.EPERM, errno.EACCES)


@dataclass(slots=True, frozen=True, kw_only=True)
class Interface:
    """A network interface that can be listened to."""

    name: str
    index: int
    link_type: LinkType
    loopback: bool


def find_interface(name: str) -> Interface:
    """The interface, which exists, is up, and has a link type that is read."""
    known = {n: i for i, n in socket.if_nameindex()}
    if name not in known:
        raise no_interface(name)
    flags, arphrd = _interface_words(name)
    link_type = of_interface(arphrd, name)
    if not flags & IFF_UP:
        raise interface_down(name)
    return Interface(
        name=name, index=known[name], link_type=link_type, loopback=arphrd == ARPHRD_LOOPBACK
    )


def is_up(name: str) -> bool:
    """Whether the interface exists and is administratively up."""
    try:
        return bool(_interface_words(name)[0] & IFF_UP)
    except CaptureError:
        return False


def open_packet_socket(*, ignore_outgoing: bool) -> tuple[socket.socket, bool]:
    """A packet socket that receives nothing yet, and whether the kernel keeps our own frames from it.

    Protocol 0 until it is bound: no frame of another interface can slip in before.
    """
    try:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    except OSError as error:
        raise _no_socket(error) from error
    sock.setblocking(False)
    if not ignore_outgoing:
        return sock, False
    try:
        sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    except OSError:  # before Linux 4.20; the reader leaves those frames out itself
        return sock, False
    return sock, True


def bind(sock: socket.socket, interface: Interface, *, promiscuous: bool) -> None:
    """Start to receive. The last step of opening: what comes first must not be lost or misread."""
    try:
        if promiscuous:
            request = struct.pack("iHH8s", interface.index, PACKET_MR_PROMISC, 0, b"")
            sock.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, request)
        sock.bind((interface.name, ETH_P_ALL))
    except OSError as error:
        raise reading_failed(error, interface.name) from error


def widen_receive_buffer(sock: socket.socket, n_bytes: int) -> None:
    """As much receive buffer as the system grants; beyond its limit only with CAP_NET_ADMIN."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, n_bytes)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, n_bytes)


def read_statistics(sock: socket.socket) -> tuple[int, int]:
    """(frames that the kernel saw, of these dropped) since the last call: reading resets both."""
    return struct.unpack("II", sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))


def interface_drops(name: str) -> int | None:
    """Frames that the interface itself has dropped while receiving, since it exists; None where unknown.

    From /proc and not from sysfs: it follows this thread's network namespace.
    """
    try:
        table = Path("/proc/thread-self/net/dev").read_text()
    except OSError:  # hidden by a strict unit
        return None
    for line in table.splitlines():
        label, _, figures = line.partition(":")
        if label.strip() == name:
            return int(figures.split()[3])
    return None


def bridge_of(interface: str) -> str | None:
    """The bridge that the interface is a port of, or None.

    A frame that crosses a bridge comes in at one port and leaves by another. Two sources that are ports
    of one bridge see it twice unless both ignore what leaves (`ignore_outgoing=True`); then frames that
    this machine itself sends into the bridge are seen by neither. Listening on the bridge sees all once.
    """
    try:
        return Path(f"/sys/class/net/{interface}/brport/bridge").readlink().name
    except OSError:
        return None


def reading_failed(error: OSError, name: str) -> CaptureError:
    """What a failed call on the socket means to a user."""
    if error.errno in GONE or (error.errno == errno.ENETDOWN and not _exists(name)):
        return no_interface(name, gone=True)
    if error.errno == errno.ENETDOWN:
        return interface_down(name)
    return CaptureError(
        CaptureReason.UNREADABLE,
        f"{name}: cannot be read: {error.strerror or error}",
        retriable=True,
    )


def no_interface(name: str, *, gone: bool = False) -> CaptureError:
    """It is not there; the line names those that are."""
    there = ", ".join(n for _, n in socket.if_nameindex()) or "none"
    problem = "the interface is gone" if gone else "no such interface"
    return CaptureError(
        CaptureReason.NO_INTERFACE, f"{name}: {problem}; there are: {there}", retriable=True
    )


def interface_down(name: str) -> CaptureError:
    """It is there and not up."""
    return CaptureError(
        CaptureReason.INTERFACE_DOWN,
        f"{name}: the interface is down: `ip link set {name} up`",
        retriable=True,
    )


def _exists(name: str) -> bool:
    return any(name == n for _, n in socket.if_nameindex())


def _interface_words(name: str) -> tuple[int, int]:
    """(flags, hardware type)."""
    request = struct.pack("16s24x", name.encode()[: IFNAMSIZ - 1])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            flags = fcntl.ioctl(sock, SIOCGIFFLAGS, request)
            hardware = fcntl.ioctl(sock, SIOCGIFHWADDR, request)
        except OSError as error:
            raise no_interface(name, gone=True) from error
    word = struct.Struct("16xH")
    return word.unpack_from(flags)[0], word.unpack_from(hardware)[0]


def _no_socket(error: OSError) -> CaptureError:
    if error.errno in REFUSED:
        python = os.path.realpath(sys.executable)
        return CaptureError(
            CaptureReason.PERMISSION,
            f"no permission for raw sockets: `sudo setcap cap_net_raw+ep {python}`, "
            "or AmbientCapabilities=CAP_NET_RAW in the systemd unit",
        )
    return CaptureError(
        CaptureReason.UNREADABLE, f"no packet socket from this system: {error.strerror or error}"
    )
