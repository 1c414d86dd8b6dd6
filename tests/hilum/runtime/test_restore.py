from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hilum import bus
from hilum.runtime.restore import Restore
from hilum.runtime.state import PartitionState
from hilum.testing import eventually

if TYPE_CHECKING:
    from tests.conftest import Log

pytestmark = pytest.mark.system

ROW = b'{"v":1,"row":{"count":%d}}'


def write(log: Log, rows: dict[str, bytes | None], partition: int = 0) -> None:
    topic = log.settings.kafka.prefix + bus.state_topic("count").name
    producer = bus.producer(log.settings)
    for key, value in rows.items():
        producer.produce(topic, value, key.encode(), partition)
    assert producer.flush(60) == 0


def restored(log: Log, *states: PartitionState) -> Restore:
    restore = Restore(log.settings, bus.admin(log.settings), log.settings.kafka.prefix + bus.state_topic("count").name, states)

    def step() -> bool:
        restore.step()
        return not restore.left

    eventually(step)
    restore.close()
    return restore


def test_each_partition_gets_its_own_rows_and_a_forgotten_one_is_gone(log: Log) -> None:
    log.make(bus.state_topic("count"))
    write(log, {"a": ROW % 1, "b": ROW % 1, "c": ROW % 1})
    write(log, {"a": ROW % 2, "b": None})
    write(log, {"d": ROW % 4}, partition=1)
    states = [PartitionState(number) for number in range(3)]

    restored(log, *states)

    assert [state.rows for state in states] == [{"a": ROW % 2, "c": ROW % 1}, {"d": ROW % 4}, {}]


def test_what_is_remembered_already_is_not_read_again(log: Log) -> None:
    log.make(bus.state_topic("count"))
    state = PartitionState(0)
    write(log, {"a": ROW % 1, "b": ROW % 1})
    assert restored(log, state).rows_read == 2

    assert restored(log, state).rows_read == 0
    write(log, {"b": ROW % 2})
    assert restored(log, state).rows_read == 1
    assert state.rows == {"a": ROW % 1, "b": ROW % 2}
