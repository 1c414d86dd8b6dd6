"""What is different between what left by a policy and what would leave by it now."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from hilum.anonymizing import anonymizer_of
from hilum.cli.deid_records import report
from hilum.database import connect
from hilum.database.choices import add
from hilum.deid_sections import Deid
from hilum.deliveries import Run
from hilum.part10 import Part10
from hilum.runtime.delivery.comparison import Compared, Comparison
from hilum.settings import Postgres, Settings
from hilum.sink import Delivery, Settled
from hilum.testing import MemoryStore, eventually
from tests.hilum.test_anonymizing import SECRET, stored
from tests.ledger import DELIVERED, Scripted, enter, rows, working

pytestmark = pytest.mark.system


class Past:
    """A destination that got an object by the first version of a policy, one that was held, and the policy as it is now."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.dsn, self.folder, self.store, self.key = dsn, folder, MemoryStore(), folder / "key"
        self.key.write_text(SECRET)
        self.key.chmod(0o600)
        self.policy('options = ["retain-patient-characteristics"]')
        enter(dsn, stored(self.store), stored(self.store, SOPInstanceUID="1.2.3.7", BurnedInAnnotation="YES"))
        with working(dsn, self.store, Scripted(answer=self._takes, policy="mine"), name="study", deid=self.deid):
            eventually(lambda: {each["state"] for each in rows(dsn).values()} == {"delivered", "parked"})

    @staticmethod
    def _takes(_: Delivery, part10: Part10) -> Settled:
        part10.file()
        return DELIVERED

    @property
    def deid(self) -> Deid:
        return Deid(key_path=str(self.key), policies=str(self.folder))

    def policy(self, text: str) -> None:
        (self.folder / "mine.toml").write_text(text)

    def comparison(self) -> Comparison:
        destinations = {"later": {"type": "folder", "path": str(self.folder), "policy": "mine"}}
        settings = Settings(postgres=Postgres(dsn=self.dsn), destinations=destinations, deid=self.deid)
        return Comparison(settings, self.store, anonymizer_of("later", "mine", settings))

    def compared(self) -> dict[str, Compared]:
        return {each.sop_instance_uid: each for each in self.comparison().of(of="", to="later", since=None)}


@pytest.fixture
def past(postgres: str, tmp_path: Path) -> Past:
    return Past(postgres, tmp_path)


def test_attributes_that_go_and_objects_that_leave_now_are_told(past: Past) -> None:
    past.policy('options = []\n[kinds]\n"burned-in" = "pass: somebody looked"\n')

    found = past.compared()

    assert (found["1.2.3.6"].before, found["1.2.3.6"].now, found["1.2.3.6"].unsure) == ("left", "leaves", "")
    assert "PatientSex" in found["1.2.3.6"].differs + found["1.2.3.6"].goes
    assert "PatientID" not in found["1.2.3.6"].differs
    assert (found["1.2.3.7"].before, found["1.2.3.7"].now) == ("held", "leaves")


def test_the_same_policy_is_no_difference(past: Past) -> None:
    found = past.compared()["1.2.3.6"]

    assert (found.stays, found.goes, found.differs, found.unsure) == ((), (), (), "")


def test_who_opted_out_since_is_held_now(past: Past) -> None:
    add(past.dsn, "opt-out", [("P1234567", "NORTH")], "mine", "me", "")

    assert {(each.before, each.reason) for each in past.compared().values()} == {("left", "opted-out"), ("held", "opted-out")}


def test_the_report_counts_and_names_no_value(past: Past, capsys: pytest.CaptureFixture[str]) -> None:
    past.policy('options = []\nrefuse = ["1.2.840.10008.5.1.4.1.1.2"]\n')

    with pytest.raises(SystemExit) as ended:
        report(past.comparison(), {"policy": "mine", "version": "v", "to": "later"}, "", "later", None, True, count=2)

    said = json.loads(capsys.readouterr().out)
    assert ended.value.code == 4
    assert (said["counts"]["left_before_held_now"], said["counts"]["held_before_held_now"]) == (1, 1)
    assert "Vandermeulen" not in str(said)
    assert "P1234567" not in str(said)
    with pytest.raises(SystemExit):
        report(past.comparison(), {"policy": "mine", "version": "v", "to": "later"}, "", "later", None, False, count=2)
    assert "left before held now\t1" in capsys.readouterr().out


def test_what_left_by_a_policy_that_nobody_kept_is_not_guessed(past: Past, capsys: pytest.CaptureFixture[str]) -> None:
    with connect(past.dsn) as connection:
        connection.execute("TRUNCATE deid_policy")

    assert past.compared()["1.2.3.6"].unsure == "policy-not-kept"
    with pytest.raises(SystemExit):
        report(past.comparison(), {"policy": "mine", "version": "v", "to": "later"}, "", "later", None, False, count=2)
    assert "policy-not-kept\t1" in capsys.readouterr().out


def test_what_left_by_a_key_that_is_gone_is_not_guessed(past: Past) -> None:
    past.key.write_text("".join(f"{n:02x}" for n in range(101, 133)))

    assert past.compared()["1.2.3.6"].unsure == "key-missing"


def test_a_run_takes_what_left_and_only_if_asked_what_was_held(past: Past) -> None:
    run = Run(destination="later", policy="mine")

    assert run.count(past.dsn)[0] == 1
    assert replace(run, held=True).count(past.dsn)[0] == 2
    assert replace(run, of="another").count(past.dsn)[0] == 0
    assert replace(run, destination="study").count(past.dsn)[0] == 0


def test_a_run_leaves_what_left_as_it_is(past: Past) -> None:
    before = rows(past.dsn)["1.2.3.6"]
    _, entered = Run(destination="later", policy="mine").enter(Settings(postgres=Postgres(dsn=past.dsn)))

    assert entered == 1
    with connect(past.dsn) as connection:
        found = connection.execute("SELECT destination, state, sent_sha256 FROM delivery WHERE sop_instance_uid = '1.2.3.6'").fetchall()
    assert sorted(found) == [("later", "pending", None), ("study", "delivered", before["sent_sha256"])]
