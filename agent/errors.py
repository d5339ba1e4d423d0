"""Every error that Wardwatch raises on purpose.

What a user meets is one line: what is wrong, where, what to do. `reason` is an enum, and the same
word is the label of the metric. Anything that is not an `AgentError` is our own bug: it ends the
process loudly and the supervisor restarts it. Bad bytes in a frame are never an error of ours:
they are a `records.Reason` in a column.
"""

from enum import StrEnum


class AgentError(Exception):
    """Base of all; `str(error)` is the one line that a user sees; `exit_status` the CLI's status."""

    exit_status = 1


class ConfigError(AgentError):
    """The configuration is wrong at `path`, the dotted path of a key (`source[0].kind`)."""

    def __init__(self, path: str, problem: str) -> None:
        self.path = path
        self.problem = problem
        super().__init__(f"{path}: {problem}" if path else problem)


class CaptureReason(StrEnum):
    """Why a device or a file cannot be read."""

    NOT_FOUND = "not_found"
    EMPTY = "empty"
    FOREIGN = "foreign"  # not a capture file
    TRUNCATED = "truncated"  # cut in mid-record; what is whole was processed
    LINK_TYPE = "link_type"  # a link type that this version does not read
    PERMISSION = "permission"
    NO_INTERFACE = "no_interface"
    INTERFACE_DOWN = "interface_down"
    RING_REFUSED = "ring_refused"
    UNREADABLE = "unreadable"


class CaptureError(AgentError):
    """A device or a file cannot be read; `retriable` says whether waiting can help."""

    def __init__(self, reason: CaptureReason, message: str, *, retriable: bool = False) -> None:
        self.reason = reason
        self.retriable = retriable
        super().__init__(message)


class DecodeError(AgentError):
    """A batch breaks the contract between capture and decode (our own fault, never a frame's)."""


class BundleReason(StrEnum):
    """Why a model bundle is refused."""

    NOT_FOUND = "not_found"
    MALFORMED = "malformed"
    TAMPERED = "tampered"
    UNTRUSTED = "untrusted"
    SCHEMA = "schema"
    TOO_NEW = "too_new"
    TOO_LARGE = "too_large"
    GOLDEN = "golden"  # golden rows did not replay exactly
    PARITY = "parity"


class BundleError(AgentError):
    """A bundle is refused."""

    def __init__(self, reason: BundleReason, message: str) -> None:
        self.reason = reason
        super().__init__(message)


class UplinkReason(StrEnum):
    """Why the broker or the spool does not take a message."""

    UNREACHABLE = "unreachable"
    DNS = "dns"
    TLS = "tls"  # a certificate that does not verify, or the wrong name
    CREDENTIALS = "credentials"
    ACL = "acl"  # PUBACK at or above 0x80
    PROTOCOL = "protocol"
    SPOOL = "spool"


class UplinkError(AgentError):
    """The broker or the spool does not take a message; `retriable` says whether waiting can help."""

    exit_status = 75

    def __init__(self, reason: UplinkReason, message: str, *, retriable: bool = True) -> None:
        self.reason = reason
        self.retriable = retriable
        if reason is UplinkReason.SPOOL:
            self.exit_status = 1
        super().__init__(message)


class BaselineReason(StrEnum):
    """Why a baseline's file is refused."""

    NOT_FOUND = "not_found"
    MALFORMED = "malformed"
    VERSION = "version"  # of a newer wardwatch
    SCHEMA = "schema"  # learned on other features
    UNWRITABLE = "unwritable"


class BaselineError(AgentError):
    """A baseline's file cannot be used."""

    def __init__(self, reason: BaselineReason, message: str) -> None:
        self.reason = reason
        super().__init__(message)
