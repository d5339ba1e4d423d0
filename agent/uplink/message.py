"""What waits in the spool and goes to the broker: one finding event, encoded. Nothing else is in here."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One MQTT message that must arrive at least once."""

    topic: str
    payload: bytes
    key: str
    """The finding's uid: messages of one key are delivered in the order of their sequence."""
    severity: int
    """OCSF 1 (info) to 5 (critical): what is dropped for space goes by this, lowest first."""
    schema: str
    """Name of the payload's schema, sent as the user property `schema`."""
    expiry_s: int
    """MQTT 5 message expiry: how long a broker keeps it for a subscriber that is away."""
    created_ns: int
    """Wall clock, nanoseconds since the epoch; for the age of the oldest row only."""

    @property
    def size(self) -> int:
        """Bytes that count against the spool's bound: payload, topic, key and a row's own cost."""
        return len(self.payload) + len(self.topic) + len(self.key) + ROW_BYTES


ROW_BYTES = 128
"""SQLite's cost of a row and its two index entries, rounded up (measured: about 100 bytes)."""
