"""Addresses as text and as pseudonyms.

It never resolves a name and never keeps what it has seen: a pseudonym is a keyed hash, so equal hosts
have equal pseudonyms at one site, and who has no key cannot try out all addresses of a subnet.

Source: RFC 2104 (HMAC), RFC 4291 2.5.5.2 (IPv4-mapped addresses), RFC 5952 (IPv6 as text).
"""

from __future__ import annotations

import hmac
from ipaddress import IPv4Address, IPv6Address

from agent.records import MAC_HI, NOBODY, V4_MAPPED_LO, Endpoint

PSEUDONYM_HEX = 16
"""64 bits: two of 4,096 hosts share a pseudonym with a chance of about 10^-12."""
_DOMAIN = b"wardwatch endpoint 1\0"
"""Keeps these hashes apart from anything else that is made with the site key."""


def is_mac(endpoint: Endpoint) -> bool:
    """Whether it is a MAC address: of a machine that has shown no IP address."""
    return endpoint.hi == MAC_HI


def is_v4(endpoint: Endpoint) -> bool:
    """Whether it is an IPv4 address."""
    return endpoint.hi == 0 and endpoint.lo >> 32 == V4_MAPPED_LO >> 32


def text(endpoint: Endpoint) -> str:
    """`192.0.2.7`, `2001:db8::1`, `02:00:00:00:00:07`; the empty text for nobody."""
    if endpoint == NOBODY:
        return ""
    if is_mac(endpoint):
        return endpoint.lo.to_bytes(8, "big")[2:].hex(":")
    if is_v4(endpoint):
        return str(IPv4Address(endpoint.lo & 0xFFFF_FFFF))
    return str(IPv6Address(endpoint.hi << 64 | endpoint.lo))


def pseudonym(endpoint: Endpoint, *, site_key: bytes) -> str:
    """`h-` and 16 hex digits of HMAC-SHA256; the empty text for nobody."""
    if endpoint == NOBODY:
        return ""
    data = _DOMAIN + endpoint.hi.to_bytes(8, "big") + endpoint.lo.to_bytes(8, "big")
    return "h-" + hmac.digest(site_key, data, "sha256").hex()[:PSEUDONYM_HEX]


def parse(address: str) -> Endpoint:
    """The endpoint of an IPv4, IPv6 or MAC address as text; `ValueError` where it is none."""
    cleaned = address.strip().lower()
    digits = cleaned.replace("-", ":").split(":")
    if len(digits) == 6 and all(len(d) == 2 for d in digits):
        return Endpoint(MAC_HI, int("".join(digits), 16))
    if "." in cleaned and ":" not in cleaned:
        return Endpoint(0, V4_MAPPED_LO | int(IPv4Address(cleaned)))
    value = int(IPv6Address(cleaned))
    return Endpoint(value >> 64, value & 0xFFFF_FFFF_FFFF_FFFF)
