"""The spool under any sequence of what its users do: nothing committed is lost, nothing overtakes its own finding."""

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agent.uplink.message import Message
from agent.uplink.spool import Spool

KEYS = st.sampled_from(["a", "b", "c"])


class Spooling(RuleBasedStateMachine):
    """A model beside it: rows as a dictionary."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.spool = Spool(Path(self.folder.name) / "spool.db")
        self.waiting: dict[int, str] = {}
        self.committed: dict[int, str] = {}
        self.sequence = 0

    @rule(key=KEYS)
    def put(self, key: str) -> None:
        def make(sequence: int) -> Message:
            return Message(
                topic=f"t/{key}", payload=b"%d" % sequence, key=key, severity=3, schema="s",
                expiry_s=1, created_ns=sequence,
            )  # fmt: skip

        self.sequence += 1
        assert self.spool.put(make) == self.sequence
        self.waiting[self.sequence] = key

    @rule()
    def commit(self) -> None:
        assert self.spool.commit() == len(self.waiting)
        self.committed |= self.waiting
        self.waiting.clear()

    @rule(limit=st.integers(1, 5), skip=st.sets(KEYS, max_size=2))
    def take_and_acknowledge(self, limit: int, skip: set[str]) -> None:
        first: dict[str, int] = {}
        for sequence in sorted(self.committed):
            if self.committed[sequence] not in skip:
                first.setdefault(self.committed[sequence], sequence)
        expected = sorted(first.values())[:limit]
        taken = self.spool.take(limit, skip_keys=skip)
        # A page may hold fewer keys than there are, but never another order and never nothing.
        assert [s for s, _ in taken] == [s for s in expected if s in dict(taken)]
        assert bool(taken) == bool(expected)
        if taken:
            sequence, message = taken[0]
            assert message.payload == b"%d" % sequence
            self.spool.done(sequence)
            del self.committed[sequence]

    @rule()
    def die_and_start_again(self) -> None:
        """As kill -9 does: what was not committed is gone, its numbers are free again."""
        self.spool._pending.clear()
        self.spool.commit() if self.spool._acknowledged else None
        lost = len(self.waiting)
        self.spool._file.close()
        self.spool = Spool(Path(self.folder.name) / "spool.db")
        assert self.spool.sequence >= self.sequence - lost
        self.sequence = self.spool.sequence
        self.waiting.clear()

    @rule(topics=st.sets(KEYS.map("t/{}".format), max_size=2))
    def refused_topics_are_held(self, topics: set[str]) -> None:
        taken = self.spool.take(10, skip_topics=topics)
        assert all(message.topic not in topics for _, message in taken)

    @invariant()
    def the_depth_is_right(self) -> None:
        if hasattr(self, "spool"):
            assert self.spool.depth == len(self.committed) + len(self.waiting)

    def teardown(self) -> None:
        if hasattr(self, "spool"):
            self.spool.close()
            self.folder.cleanup()


TestSpooling = Spooling.TestCase
TestSpooling.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
