"""The day's scenario over MLLP, Kafka and PostgreSQL: senders mixed by chance, roles killed at random points, and the truth table holds."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from bench.peers import free_port
from hilum.bus import state_topic
from hilum.database import connect
from hilum.errors import TryAgain
from hilum.events import MatchChanged, MatchRequested, MessageReceived, MessageValidated
from hilum.hl7.message import parse
from hilum.hl7.validation import validated
from hilum.hl7_sections import Hl7, Hl7Sender
from hilum.mllp_client import MllpClient
from hilum.order_sections import Orders as OrdersTable
from hilum.sections import Probe, Spool
from hilum.settings import S3, Postgres, Settings
from hilum.testing import eventually
from tests.conftest import Log
from tests.hospital_day import QUEUES, TRUTH
from tests.roles import Roles, a_role, roles

pytestmark = pytest.mark.system

#: Each in a process of its own.
ROLES = ("hl7", "grammar", "orders", "match", "index")
KILLED = ("match", "match", "match", "match", "hl7", "grammar", "orders", "index")
#: Ten years: whenever the test runs, its day is not over.
LONG = OrdersTable(time_zone="Europe/Vienna", order_within_hours=87_600, images_within_hours=87_600, match_days=3_650)
#: Who sends messages, by MSH-3.
SENDERS = {name: Hl7Sender(applications=(name.upper(),)) for name, queue in QUEUES.items() if isinstance(queue[0], str)}
#: Where nothing listens: none of the messages is so large that the object store is asked.
NOWHERE = S3(endpoint="http://127.0.0.1:1", access_key="none", secret_key="none")


def shuffled(chance: random.Random) -> Iterator[tuple[str, str | MatchRequested]]:
    """What everybody sends, each in his own order."""
    left = {name: list(queue) for name, queue in QUEUES.items()}
    while queues := sorted(name for name, queue in left.items() if queue):
        name = chance.choice(queues)
        yield name, left[name].pop(0)


def configured(settings: Settings, folder: Path) -> Path:
    """A file with what of these settings the roles need."""
    names = ("kafka", "postgres", "s3", "spool", "probe", "hl7", "orders")
    tables = {name: msgspec.to_builtins(getattr(settings, name)) for name in names}
    file = folder / "hilum.toml"
    file.write_text("\n".join([f"data = {json.dumps(settings.data)}", *(_toml(name, table) for name, table in tables.items())]))
    return file


def _toml(name: str, table: dict[str, object]) -> str:
    """A table of settings and those below it."""
    values = [f"{key} = {json.dumps(value)}" for key, value in table.items() if not isinstance(value, dict)]
    below = [_toml(f"{name}.{key}", value) for key, value in table.items() if isinstance(value, dict)]
    return "\n".join([f"[{name}]", *values, *below])


def send(client: MllpClient, message: str) -> None:
    """As senders do: again and again, until it is acknowledged."""
    content = "".join(f"{line.strip()}\r" for line in message.strip().splitlines()).encode()

    def answer() -> bytes | None:
        try:
            return client.send(content)
        except TryAgain:
            return None

    assert parse(eventually(answer, what="an acknowledgement").decode()).get("MSA-1") == "AA"  # type: ignore[union-attr]


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


def live(chance: random.Random, running: Roles, log: Log, port: int) -> None:
    """A day: each sender of messages has a connection of its own; images are what `route` says of them."""
    sent = list(shuffled(chance))
    kills = dict(zip(chance.sample(range(1, len(sent)), len(KILLED)), KILLED, strict=True))
    clients = {name: MllpClient("127.0.0.1", port) for name in SENDERS}
    with log.following(MatchChanged) as said:
        for number, (name, each) in enumerate(sent):
            if isinstance(each, MatchRequested):
                log.say(each)
            else:
                send(clients[name], each)
            if number in kills:
                # Killed at once, or up to half a second later: while it begins, works, or has said something more.
                for _ in range(chance.randrange(10)):
                    said()
                running.kill_and_start(kills[number])
    for client in clients.values():
        client.close()


@pytest.mark.parametrize("seed", [1, 2])
def test_the_truth_table_holds_whatever_comes_first_and_whichever_role_is_killed(
    seed: int, log: Log, postgres: str, tmp_path: Path
) -> None:
    log.make(state_topic("orders"), state_topic("match"), partitions=2)
    settings = replace(
        log.settings,
        data=str(tmp_path / "data"),
        postgres=Postgres(dsn=postgres),
        s3=NOWHERE,
        spool=Spool(min_free_bytes=0),
        probe=Probe(port=0),
        hl7=Hl7(port=free_port(), senders=SENDERS, history_bytes=2**20),
        orders=LONG,
    )
    config = configured(settings, tmp_path)
    with roles(*(a_role(name, tmp_path, config) for name in ROLES)) as running:
        running.start()
        live(random.Random(seed), running, log, settings.hl7.port)
        eventually(lambda: len(outcomes(postgres)) == len(TRUTH), what="an outcome for every study")
        running.kill_and_start("match")
        eventually(lambda: outcomes(postgres) == TRUTH, what=f"the truth table, not {outcomes(postgres)}")
        messages = [each for queue in QUEUES.values() for each in queue if isinstance(each, str)]
        told = log.events(MessageReceived, len(messages))
        odd = {event.message_id for event in told if validated(event.text)}
        checked = log.events(MessageValidated, len(odd))

    assert len({event.message_id for event in told}) == len(messages), "each once, however often it was sent"
    assert {event.message_id for event in checked} == odd
