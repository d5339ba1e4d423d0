"""What people tune: suppressions, maintenance windows, roles, approvals, as typed settings.

The same types check the tables of agent.toml and the file that `wardwatch tune` writes, so that an
entry means the same wherever it stands. It only says what a value may look like; what entries mean
together (a window that is named but not there) is checked where they are put to use (`agent.tuning`).

In, out: nothing; these are types. Raises: nothing. Remembers: nothing.
"""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
DAILY = r"^(([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9])?$"

Name = Annotated[str, Meta(pattern=NAME)]
"""Stands in MQTT topics: letters, digits, `_`, `-`."""
Daily = Annotated[str, Meta(pattern=DAILY)]
Time = Annotated[datetime, Meta(tz=True)]
Text = Annotated[str, Meta(min_length=1, max_length=200)]
Port = Annotated[int, Meta(ge=1, le=65_535)]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

MAX_ENTRIES = 256
"""Of each kind: what a person can still read; bounds what a verdict costs."""


class SuppressionSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[suppress]]`: findings that the site knows of and does not want; each use is counted."""

    name: Name
    """Under which `health` counts its uses."""
    detection: str
    """A detection id, or `*`."""
    where: str
    """An asset tag, an address, or a subnet (CIDR); attacker or victim."""
    expires: Time
    """From then on it does nothing; there is no suppression for ever."""
    starts: Time | None = None
    daily: Daily = ""
    """Hours of the day in UTC, `22:00-06:00`; empty: all day."""
    window: Name | None = None
    """Name of a maintenance window; None: at any time."""
    reason: Annotated[str, Meta(min_length=1)]
    author: Annotated[str, Meta(min_length=1)]


class WindowSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[window]]`: a maintenance window, weekly (days, hours, zone) or one-off (starts, ends)."""

    name: Name
    days: tuple[Day, ...] = ()
    """On which days it begins; empty: on each."""
    hours: Daily = ""
    """In the zone's own time, `22:00-04:00` ends on the next day; empty: the whole day."""
    zone: str = "UTC"
    """A name of the time zone database, `Europe/Paris`: daylight saving is followed."""
    starts: Time | None = None
    ends: Time | None = None
    reason: str = ""
    author: str = ""


class RoleSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[role]]`: what a machine is there to do."""

    name: Name
    role: Literal["scanner", "nms", "dhcp_server", "gateway"]
    address: str
    """Its IP address."""
    mac: Annotated[tuple[str, ...], Meta(max_length=8)] = ()
    """Its MAC addresses, as this segment sees them; empty: whoever has the address has the role."""
    window: Name | None = None
    """The maintenance window that it keeps to; a scanner needs one."""
    expires: Time | None = None
    reason: str = ""
    author: str = ""


class ApprovalSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[approve]]`: this peer, or these ports, are fine for this device."""

    name: Name
    device: str
    """An asset tag, an address, or a subnet."""
    peer: str = "*"
    """The same, or `*`: any."""
    port: Annotated[tuple[Port, ...], Meta(max_length=64)] = ()
    """Empty: any."""
    expires: Time | None = None
    reason: Annotated[str, Meta(min_length=1)]
    author: Annotated[str, Meta(min_length=1)]


Suppress = Annotated[tuple[SuppressionSettings, ...], Meta(max_length=MAX_ENTRIES)]
Window = Annotated[tuple[WindowSettings, ...], Meta(max_length=MAX_ENTRIES)]
Role = Annotated[tuple[RoleSettings, ...], Meta(max_length=MAX_ENTRIES)]
Approve = Annotated[tuple[ApprovalSettings, ...], Meta(max_length=MAX_ENTRIES)]


class TuningFile(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What `wardwatch tune` keeps in the state folder."""

    version: Literal[1] = 1
    suppress: Suppress = ()
    window: Window = ()
    role: Role = ()
    approve: Approve = ()


SECTIONS = ("suppress", "window", "role", "approve")
"""The tables, by the name that they have in the settings and in the file."""
Entry = SuppressionSettings | WindowSettings | RoleSettings | ApprovalSettings
