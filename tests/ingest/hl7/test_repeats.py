from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from ingest.hl7.repeats import Known, Repeats

keys, digests = st.sampled_from(["", "a", "b"]), st.sampled_from([b"1", b"2"])


class Coming(RuleBasedStateMachine):
    """Messages come, and reach the disk in the order in which they came, or are refused."""

    def __init__(self) -> None:
        super().__init__()
        self.repeats = Repeats()
        self.under_way: list[tuple[str, bytes]] = []
        self.durable: dict[str, bytes] = {}

    @rule(key=keys, digest=digests)
    def comes(self, key: str, digest: bytes) -> None:
        known = self.repeats.known(key, digest)
        open_ = [each for each in self.under_way if each[0] == key]

        if not key:
            assert known is Known.NEW
        elif open_:
            assert known is (Known.UNDER_WAY if open_[-1][1] == digest else Known.CHANGED)
        elif key in self.durable:
            assert known is (Known.REPEAT if self.durable[key] == digest else Known.CHANGED)
        else:
            assert known is Known.NEW
        if known in (Known.NEW, Known.CHANGED):
            self.repeats.began(key, digest)
            self.under_way.append((key, digest))

    @rule(is_durable=st.booleans())
    def ends(self, is_durable: bool) -> None:
        if self.under_way:
            key, digest = self.under_way.pop(0)
            self.repeats.ended(key, digest, durable=is_durable)
            if is_durable and key:
                self.durable[key] = digest


TestComing = Coming.TestCase
TestComing.settings = settings(deadline=None, max_examples=60)


def test_only_so_many_are_remembered_and_the_oldest_go_first() -> None:
    repeats = Repeats(most=2)
    for key in ("a", "b", "a", "c"):
        repeats.remember(key, b"1")

    assert [key for key in ("a", "b", "c") if repeats.known(key, b"1") is Known.REPEAT] == ["a", "c"]
