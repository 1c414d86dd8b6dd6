"""The day's scenario on Kafka and PostgreSQL, senders mixed by chance, while `match` is killed at random points: the truth table holds."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from hilum.bus import state_topic
from hilum.database import connect
from hilum.events import Event, MatchChanged, MatchRequested, MessageReceived
from hilum.order_sections import Orders as OrdersTable
from hilum.pseudonyms import pseudonyms
from hilum.runtime.loop import ProcessorRole
from hilum.runtime.tables import TableRole
from hilum.settings import Postgres, Settings
from hilum.testing import eventually
from processors.index import Index
from processors.orders import Orders
from tests.conftest import Log
from tests.hospital_day import QUEUES, TRUTH

pytestmark = pytest.mark.system

KILLS = 5
END_OF_DAY = datetime(2026, 11, 26, 22, tzinfo=UTC)
#: Ten years: whenever the test runs, its day is not over.
LONG = OrdersTable(time_zone="Europe/Vienna", order_within_hours=87_600, images_within_hours=87_600, match_days=3_650)


def shuffled(chance: random.Random) -> Iterator[Event]:
    """What everybody sends, each in his own order."""
    left = {name: list(queue) for name, queue in QUEUES.items()}
    while queues := sorted(name for name, queue in left.items() if queue):
        name = chance.choice(queues)
        sent = left[name].pop(0)
        if isinstance(sent, MatchRequested):
            yield sent
        else:
            text = "".join(f"{line.strip()}\r" for line in sent.strip().splitlines())
            yield MessageReceived(
                message_id=uuid.uuid4().hex, received_at=END_OF_DAY, sender=name, sha256="0" * 64, size_bytes=len(text), text=text
            )


class Matching:
    """The role `match` in a process of its own, which can be killed and started again."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._file = folder / "hilum.toml"
        kafka, orders = (
            "\n".join(f"{name} = {json.dumps(value)}" for name, value in msgspec.to_builtins(table).items())
            for table in (settings.kafka, settings.orders)
        )
        self._file.write_text(
            f'data = "{settings.data}"\n[kafka]\n{kafka}\n[postgres]\ndsn = "{settings.postgres.dsn}"\n'
            f'[s3]\nendpoint = "http://127.0.0.1:1"\n[orders]\n{orders}\n'
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HILUM_")} | {"HILUM_SLOT": "0"}
        command = [sys.executable, "-m", "hilum", "run", "match", "--config", str(self._file)]
        self._process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        """As `kill -9` does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()


def outcomes(dsn: str) -> dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """By study, as the tables have it."""
    with connect(dsn) as connection:
        placers: dict[str, str] = dict(connection.execute("SELECT order_id, placer_number FROM scheduled_order").fetchall())
        found = connection.execute("SELECT id, outcome, order_ids, differences FROM match WHERE about = 'study'").fetchall()
    return {
        uid: (
            outcome,
            tuple(sorted(placers.get(each, "not known yet") for each in orders)),
            tuple(sorted(each["attribute"] for each in differences)),
        )
        for uid, outcome, orders, differences in found
    }


@pytest.mark.parametrize("seed", [1, 2])
def test_the_truth_table_holds_whatever_comes_first_and_whenever_match_is_killed(
    seed: int, log: Log, postgres: str, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    log.make(state_topic("orders"), state_topic("match"), partitions=2)
    settings = replace(
        log.settings,
        data=str(tmp_path / "data"),
        postgres=Postgres(dsn=postgres),
        orders=LONG,
    )
    with connect(postgres) as connection:
        connection.execute("TRUNCATE scheduled_order, scheduled_step, patient, patient_id, match, consumer_offset")
    events = list(shuffled(chance))
    kills = sorted(chance.sample(range(1, len(events)), KILLS - 1))
    matching = Matching(settings, tmp_path)
    roles = (ProcessorRole(settings, Orders(settings, pseudonyms(settings)), slot="0"), TableRole(settings, Index()))
    with log.running(*roles), log.following(MatchChanged) as said:
        matching.start()
        try:
            for number, event in enumerate(events):
                log.say(event)
                if number in kills:
                    # Killed once it has said something more, or while it begins, as chance has it.
                    if chance.random() < 0.5:
                        eventually(said, 30, what="an outcome")
                    matching.kill()
                    matching.start()
            eventually(lambda: len(outcomes(postgres)) == len(TRUTH), 60, what="an outcome for every study")
            matching.kill()
            matching.start()
            eventually(lambda: outcomes(postgres) == TRUTH, 60, what=f"the truth table, not {outcomes(postgres)}")
        finally:
            matching.kill()
