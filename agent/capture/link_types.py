"""Which link types this version reads, and the one line for those it does not.

In: the number that a capture file or an interface gives. Out: a `records.LinkType`.
Raises: CaptureError(LINK_TYPE). Remembers: nothing.
Source: tcpdump.org/linktypes.html; linux/if_arp.h.
"""

from agent.errors import CaptureError, CaptureReason
from agent.records import LinkType

RADIO_LINK_TYPES = {
    105: "IEEE 802.11",
    119: "IEEE 802.11, Prism header",
    127: "IEEE 802.11, radiotap",
    163: "IEEE 802.11, AVS header",
    187: "Bluetooth HCI",
    192: "PPI radio header",
    195: "IEEE 802.15.4",
    201: "Bluetooth HCI with direction",
    251: "Bluetooth LE",
    254: "Bluetooth monitor",
    256: "Bluetooth LE with radio header",
    272: "Nordic BLE sniffer",
}

OTHER_LINK_TYPES = {
    9: "PPP",
    50: "PPP over HDLC",
    51: "PPPoE",
    104: "Cisco HDLC",
    147: "user-defined",
    189: "USB",
    220: "USB",
    249: "USBPcap",
}

ARPHRD_LINK_TYPES = {1: LinkType.ETHERNET, 772: LinkType.ETHERNET, 0xFFFE: LinkType.RAW}
"""Hardware types of live interfaces: Ethernet, loopback, none (tun, WireGuard)."""

ARPHRD_LOOPBACK = 772
RADIO_ARPHRD = {801: "IEEE 802.11", 802: "IEEE 802.11, Prism header", 803: "IEEE 802.11, radiotap"}


def is_read(number: int) -> bool:
    """Whether frames of this link type are read."""
    return number in LinkType._value2member_map_


def refusal(number: int) -> str:
    """Why a link type is not read, in words."""
    if number in RADIO_LINK_TYPES:
        return f"radio capture (link type {number}, {RADIO_LINK_TYPES[number]}): not read by this version"
    name = f", {OTHER_LINK_TYPES[number]}" if number in OTHER_LINK_TYPES else ""
    return f"link type {number}{name}: not read by this version"


def require_read(number: int, where: str) -> LinkType:
    """The `LinkType` of `number`, or CaptureError that names `where` (a path or an interface)."""
    if not is_read(number):
        raise CaptureError(CaptureReason.LINK_TYPE, f"{where}: {refusal(number)}")
    return LinkType(number)


def of_interface(arphrd: int, interface: str) -> LinkType:
    """The `LinkType` of frames read raw from an interface of this hardware type."""
    if arphrd in ARPHRD_LINK_TYPES:
        return ARPHRD_LINK_TYPES[arphrd]
    what = RADIO_ARPHRD.get(arphrd)
    problem = f"a radio in monitor mode ({what})" if what else f"hardware type {arphrd}"
    raise CaptureError(
        CaptureReason.LINK_TYPE, f"{interface}: {problem} is not read by this version"
    )
