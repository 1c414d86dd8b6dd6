from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from hilum.errors import Stopped
from hilum.runtime.processor import Memory
from hilum.runtime.state import Changes, Codec, PartitionState, milliseconds
from hilum.testing import FakeMemory

NOON = datetime(2024, 2, 29, 12, tzinfo=UTC)


class Row(msgspec.Struct):
    seen: list[str]


class NewerRow(msgspec.Struct):
    """The same row in a later release."""

    seen: list[str]
    note: str = ""


def a_state(**rows: bytes) -> PartitionState:
    state = PartitionState(0)
    for key, value in rows.items():
        state.apply(key, value)
    return state


class MemoryContract:
    """What handlers rely on, of the fake and of the real one."""

    def memory(self) -> Memory[Row]:
        raise NotImplementedError

    def test_a_row_that_was_never_put_is_none(self) -> None:
        assert self.memory().get("a") is None

    def test_what_is_put_is_there(self) -> None:
        memory = self.memory()
        memory.put("a", Row(["1"]))

        assert memory.get("a") == Row(["1"])

    def test_a_row_is_a_copy_when_it_is_put(self) -> None:
        memory, row = self.memory(), Row(["1"])
        memory.put("a", row)
        row.seen.append("2")

        assert memory.get("a") == Row(["1"])

    def test_a_row_is_a_copy_each_time_it_is_got(self) -> None:
        memory = self.memory()
        memory.put("a", Row(["1"]))
        got = memory.get("a")
        assert got is not None
        got.seen.append("2")

        assert memory.get("a") == Row(["1"])

    def test_what_is_forgotten_is_gone(self) -> None:
        memory = self.memory()
        memory.put("a", Row(["1"]))
        memory.forget("a")

        assert memory.get("a") is None


class TestFakeMemory(MemoryContract):
    def memory(self) -> Memory[Row]:
        return FakeMemory()


class TestChanges(MemoryContract):
    def memory(self) -> Memory[Row]:
        return Changes(a_state(), Codec(Row))


def test_what_a_handler_changed_before_it_failed_is_undone() -> None:
    changes = Changes(a_state(), Codec(Row))
    changes.put("a", Row(["kept"]))
    changes.keep()
    changes.put("a", Row(["void"]))
    changes.forget("b")
    changes.undo()

    assert changes.get("a") == Row(["kept"])
    assert [key for key, _ in changes.items()] == ["a"]


def test_changes_are_the_state_once_they_are_committed_and_not_before() -> None:
    state = a_state()
    changes = Changes(state, Codec(Row))
    changes.put("a", Row(["1"]))
    changes.keep()
    assert state.rows == {}

    changes.commit()

    assert Changes(state, Codec(Row)).get("a") == Row(["1"])


def test_of_a_row_that_changed_several_times_only_the_last_value_is_written() -> None:
    changes = Changes(a_state(), Codec(Row))
    for number in range(3):
        changes.put("a", Row([str(number)]))
        changes.keep()
    changes.put("b", Row([]))
    changes.forget("b")
    changes.keep()

    assert dict(changes.items()) == {"a": b'{"row":{"seen":["2"]},"v":1}', "b": None}


def test_a_row_of_the_next_release_is_read_by_this_one_and_the_other_way_round() -> None:
    newer = Codec(NewerRow).encode(NewerRow(["1"], note="new"), None)
    older = Codec(Row).encode(Row(["1"]), None)

    assert Codec(Row).decode(newer) == Row(["1"])
    assert Codec(NewerRow).decode(older) == NewerRow(["1"])


def test_a_row_of_an_unknown_version_stops_in_words() -> None:
    with pytest.raises(Stopped, match="its rows are of version 2, not 1"):
        a_state(a=b'{"v":2,"other":{}}')


def due_keys(state: PartitionState, now: datetime, limit: int = 10) -> list[str]:
    return [key for _, key in state.due(milliseconds(now), limit)]


def test_timers_are_due_in_the_order_of_their_time() -> None:
    changes = Changes(state := a_state(), Codec(Row))
    for minutes, key in ((3, "c"), (1, "a"), (2, "b"), (60, "later")):
        changes.put(key, Row([]), due=NOON + timedelta(minutes=minutes))
    changes.keep()
    changes.commit()

    assert due_keys(state, NOON + timedelta(minutes=5)) == ["a", "b", "c"]
    assert due_keys(state, NOON + timedelta(minutes=5), limit=2) == ["a", "b"]
    assert due_keys(state, NOON) == []


def test_a_timer_stays_until_a_commit_has_changed_its_row() -> None:
    changes = Changes(state := a_state(), Codec(Row))
    changes.put("a", Row([]), due=NOON)
    changes.keep()
    changes.commit()

    assert due_keys(state, NOON) == due_keys(state, NOON) == ["a"]


@pytest.mark.parametrize("again", ["later", "without", "forgotten"])
def test_a_timer_that_was_moved_or_dropped_does_not_fire(again: str) -> None:
    changes = Changes(state := a_state(), Codec(Row))
    changes.put("a", Row([]), due=NOON)
    changes.keep()
    changes.commit()

    match again:
        case "later":
            changes.put("a", Row([]), due=NOON + timedelta(hours=1))
        case "without":
            changes.put("a", Row([]))
        case _:
            changes.forget("a")
    changes.keep()
    changes.commit()

    assert due_keys(state, NOON) == []
    assert (state.next_due() is not None) is (again == "later")


def test_timers_are_restored_with_their_rows() -> None:
    changes = Changes(a_state(), Codec(Row))
    changes.put("a", Row([]), due=NOON)
    changes.keep()

    restored = a_state(**{key: value for key, value in changes.items() if value})

    assert due_keys(restored, NOON) == ["a"]


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(TypeError, match="without its zone"):
        Changes(a_state(), Codec(Row)).put("a", Row([]), due=datetime(2024, 2, 29))  # noqa: DTZ001  # what is refused
