"""What decides pseudonyms and dates beside policy and key is the same for all that leaves under a key, until somebody accepts other."""

from __future__ import annotations

import json
import threading
import uuid
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from psycopg.rows import dict_row
from typer.testing import CliRunner, Result

from hilum import bus
from hilum.anonymizing import anonymizer_of
from hilum.cli import app
from hilum.database import connect
from hilum.database.deid_settings import accept, check, listed
from hilum.deid_sections import Deid
from hilum.errors import Misconfigured
from hilum.part10 import Part10
from hilum.runtime.delivery.comparison import Comparison
from hilum.runtime.delivery.queue import Queue
from hilum.runtime.delivery.worker import Shared, Worker
from hilum.settings import Postgres, Settings
from hilum.sink import Delivery, Settled
from hilum.testing import MemoryStore, eventually
from tests.hilum.test_anonymizing import key_file, stored
from tests.ledger import DELIVERED, Scripted, enter, rows, working

UID = "1.2.3.6"
KEY = "0123456789ab"


def test_the_id_is_of_what_decides_and_of_nothing_else() -> None:
    plain = Deid()
    same = Deid(key_path="/elsewhere", policies="/other", defacer_timeout_s=5.0, reverse_key_path="/third")
    others = [Deid(earliest_days=-30), Deid(latest_days=-2), Deid(default_issuer="NORTH"), Deid(same_issuers={"HIS": "NORTH"})]

    assert plain.settings_id == same.settings_id
    assert len({plain.settings_id, *(each.settings_id for each in others)}) == 1 + len(others)
    one, other = ({"A": "N", "B": "N"}, {"B": "N", "A": "N"})
    assert Deid(same_issuers=one).settings_id == Deid(same_issuers=other).settings_id


@pytest.mark.system
class TestWhatHolds:
    def test_the_first_settings_under_a_key_hold_until_others_are_accepted(self, postgres: str) -> None:
        first, other = Deid(default_issuer="NORTH"), Deid(default_issuer="SOUTH", earliest_days=-30, same_issuers={"HIS": "SOUTH"})
        with connect(postgres) as connection:
            check(connection, KEY, first)
            check(connection, KEY, first)
            check(connection, "another key", other)
            with pytest.raises(Misconfigured) as wrong:
                check(connection, KEY, other)
            accept(postgres, KEY, other, by="me", why="letter of 3 May")
            check(connection, KEY, other)
            with pytest.raises(Misconfigured):
                check(connection, KEY, first)

        said = str(wrong.value)
        assert "deid.earliest_days is -30 and was -3650, deid.default_issuer is 'SOUTH' and was 'NORTH'" in said
        assert "deid.same_issuers is another list" in said
        assert [each.accepted_by for each in listed(postgres, KEY)] == ["the first machine", "me"]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def deid(tmp_path: Path) -> Deid:
    return Deid(key_path=str(key_file(tmp_path)), policies="/nonexistent")


def reads(_: Delivery, part10: Part10) -> Settled:
    part10.file()
    return DELIVERED


def left(dsn: str) -> list[dict[str, Any]]:
    with connect(dsn) as connection:
        return connection.cursor(row_factory=dict_row).execute("SELECT * FROM deidentified ORDER BY begun_at").fetchall()


@pytest.mark.system
def test_a_worker_with_other_settings_lets_nothing_out(postgres: str, store: MemoryStore, deid: Deid) -> None:
    enter(postgres, stored(store))
    with working(postgres, store, Scripted(answer=reads, policy="research"), name="study", deid=deid):
        eventually(lambda: rows(postgres)[UID]["state"] == "delivered")
    assert left(postgres)[0]["settings_id"] == deid.settings_id

    enter(postgres, replace(stored(store, SOPInstanceUID="1.2.3.7"), delivery_id="second"))
    settings = Settings(postgres=Postgres(dsn=postgres), deid=replace(deid, earliest_days=-30))
    sink, queue = Scripted(answer=reads, policy="research"), Queue(postgres, "study", str(uuid.uuid4()), bus.Writer(Settings(), "deliver"))
    with pytest.raises(Misconfigured, match=r"deid\.earliest_days is -30 and was -3650"):
        Worker(Shared("study", sink), queue, store, settings, threading.Event()).run(threading.Event())

    assert not sink.seen
    row = rows(postgres)["1.2.3.7"]
    assert (row["state"], row["claimed_by"]) == ("pending", None)  # it was not even taken


@pytest.mark.system
def test_a_rerun_makes_what_left_by_the_settings_of_that_time(postgres: str, store: MemoryStore, deid: Deid) -> None:
    enter(postgres, stored(store))
    with working(postgres, store, Scripted(answer=reads, policy="research"), name="study", deid=deid):
        eventually(lambda: rows(postgres)[UID]["state"] == "delivered")
    now = replace(deid, earliest_days=-30)
    tables = {"later": {"type": "folder", "path": "/srv", "policy": "research"}}
    settings = Settings(postgres=Postgres(dsn=postgres), deid=now, destinations=tables)

    [found] = Comparison(settings, store, anonymizer_of("later", "research", settings)).of(of="", to="later", since=None)

    assert found.unsure == ""  # made again to the byte
    assert "StudyDate" in found.differs


@pytest.mark.system
def test_other_settings_hold_once_an_administrator_accepts_them(postgres: str, tmp_path: Path, deid: Deid) -> None:
    config = tmp_path / "hilum.toml"
    environment = {"HILUM_CONFIG": str(config), "HILUM_POSTGRES__DSN": postgres}
    environment |= {"HILUM_S3__ENDPOINT": "http://none:1", "HILUM_KAFKA__BOOTSTRAP": "none:1"}
    key_id = anonymizer_of("x", "research", Settings(deid=deid)).key_id
    with connect(postgres) as connection:
        check(connection, key_id, deid)

    def hilum(*words: str) -> Result:
        return CliRunner().invoke(app, ["deid", "settings", *words], env=environment)

    config.write_text(f'[deid]\nkey_path = "{deid.key_path}"\n')
    assert "hold under the key" in hilum("accept").output
    config.write_text(f'[deid]\nkey_path = "{deid.key_path}"\ndefault_issuer = "NORTH"\n')
    said = hilum("accept").output.replace("\n", " ")
    assert "deid.default_issuer is 'NORTH' and was ''. --yes has them hold." in said
    assert isinstance(hilum("accept", "--yes").exception, Misconfigured)
    assert json.loads(hilum("accept", "--yes", "--why", "letter", "--json").stdout)["accepted"]
    listed_ = json.loads(hilum("list", "--json").stdout)
    assert [each["said"]["default_issuer"] for each in listed_["settings"]] == ["", "NORTH"]
    assert listed_["settings"][-1]["settings_id"] == listed_["here"]["settings_id"]
    assert hilum("list").exit_code == 0
