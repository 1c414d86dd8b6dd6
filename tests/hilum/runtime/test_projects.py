"""A policy that gets another project: who opted out of the former one is held until somebody decides. What left is found and stays told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from hilum.bundle import InForce
from hilum.cli import app
from hilum.database import connect
from hilum.database.choices import add
from hilum.database.deidentified import Output, outputs
from hilum.database.deliveries import Selection
from hilum.database.let_out import accept
from hilum.database.persons import Standing, standing
from hilum.database.projects import decide, note, undecided
from hilum.database.withdrawing import to_take_back, withdrawn
from hilum.deid_sections import Deid
from hilum.deliveries import retry
from hilum.errors import HilumError, NotFound
from hilum.identity import Authorities
from hilum.loosened import lets_out
from hilum.moved import moved
from hilum.order_events import Identifier
from hilum.part10 import Part10
from hilum.settings import Postgres, Settings
from hilum.sink import Delivery, Later, Settled
from hilum.testing import MemoryStore, eventually
from tests.hilum.test_anonymizing import SECRET, stored
from tests.ledger import DELIVERED, Scripted, enter, rows, working

pytestmark = pytest.mark.system

SITE = Authorities(default="NORTH")


def takes(_: Delivery, part10: Part10) -> Settled:
    part10.file()
    return DELIVERED


class Site:
    """A machine whose policy `heart` is of a project that may change."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.dsn, self.folder, self.store = dsn, folder, MemoryStore()
        key = folder / "key"
        key.write_text(SECRET)
        key.chmod(0o600)
        self.deid = Deid(key_path=str(key), policies=str(folder))
        self.settings = Settings(postgres=Postgres(dsn=dsn), deid=self.deid)
        self.config = folder / "hilum.toml"
        self.config.write_text(
            f'[deid]\npolicies = "{folder}"\n[postgres]\ndsn = "{dsn}"\n[kafka]\nbootstrap = "127.0.0.1:1"\n'
            '[s3]\nendpoint = "http://127.0.0.1:1"\n'
        )
        self.project("alpha")
        with connect(dsn) as connection:
            connection.execute(
                "INSERT INTO study (study_instance_uid, patient_id, issuer_of_patient_id, receipt, received_at)"
                " VALUES ('1.2.3.1', 'P1234567', 'NORTH', 'r', now())"
            )

    def project(self, project: str) -> None:
        """The policy has this project from now on, as an administrator accepts."""
        (self.folder / "heart.toml").write_text(f'domain = "{project}"\n')
        tables = {"study": {"type": "folder", "path": "/srv/study", "policy": "heart"}}
        accept(self.dsn, [("study", lets_out("study", replace(self.settings, destinations=tables)))], by="me", why="")

    def send(self, uid: str, state: str = "delivered", **more: Any) -> dict[str, Any]:
        """What became of an object once it was tried."""
        enter(self.dsn, stored(self.store, SOPInstanceUID=uid, **more))
        return self.work(uid, state)

    def work(self, uid: str, state: str = "delivered", sink: Scripted | None = None) -> dict[str, Any]:
        with working(self.dsn, self.store, sink or Scripted(answer=takes, policy="heart"), name="study", deid=self.deid):
            return eventually(lambda: row if (row := rows(self.dsn)[uid])["state"] == state else {})

    def standing(self, project: str) -> Standing:
        with connect(self.dsn) as connection:
            return standing(connection, Identifier(value="P1234567", issuer="NORTH"), project, None, SITE)

    def to_take_back(self, project: str, *, consent: bool = False) -> list[str]:
        return [each.output.sop_instance_uid for each in to_take_back(self.dsn, "study", project, SITE, consent=consent)]

    def command(self, *words: str) -> dict[str, Any]:
        result = CliRunner().invoke(app, ["deid", *words, "--config", str(self.config), "--json"])
        if isinstance(result.exception, HilumError):
            raise result.exception
        assert result.exit_code == 0, result.output
        found: dict[str, Any] = json.loads(result.stdout)
        return found


@pytest.fixture
def site(postgres: str, tmp_path: Path) -> Site:
    return Site(postgres, tmp_path)


def test_who_opted_out_of_a_former_project_is_held_until_somebody_decides(site: Site) -> None:
    site.send("1.2.3.6")
    add(site.dsn, "opt-out", [("P1234567", "NORTH")], "alpha", "me", "")
    site.project("beta")

    held = site.send("1.2.3.7", "parked")

    assert "opted out of alpha" in held["comment"]
    assert "hilum deid projects" in held["comment"]
    (waits,) = undecided(site.dsn)
    assert (waits.policy, waits.former, waits.project, waits.opted_out) == ("heart", "alpha", "beta", 1)
    decide(site.dsn, "alpha", "beta", carry=(), by="me", why="")
    retry(site.settings, Selection(destination="study"))
    assert site.work("1.2.3.7")["sent_as"]


def test_opt_outs_that_are_carried_over_hold_under_the_new_project(site: Site) -> None:
    note(site.dsn, [("heart", "alpha"), ("heart", "beta")])
    add(site.dsn, "opt-out", [("P1234567", "NORTH")], "alpha", "me", "")
    add(site.dsn, "consent", [("P1234567", "NORTH")], "alpha", "me", "")

    assert site.standing("beta") == Standing(opted_out=True, consented=False, former="alpha")
    assert decide(site.dsn, "alpha", "beta", carry=("opt-out",), by="me", why="") == (1, 1)
    assert site.standing("beta") == Standing(opted_out=True, consented=False)
    assert site.standing("alpha") == Standing(opted_out=True, consented=True)


def test_a_decision_is_of_the_policies_of_then(site: Site) -> None:
    note(site.dsn, [("heart", "alpha"), ("heart", "beta")])
    add(site.dsn, "opt-out", [("P1234567", "NORTH")], "alpha", "me", "")
    decide(site.dsn, "alpha", "beta", carry=(), by="me", why="")
    assert not site.standing("beta").opted_out

    note(site.dsn, [("lung", "alpha"), ("lung", "beta")])

    assert site.standing("beta").opted_out


def test_another_policys_project_is_no_former_one(site: Site) -> None:
    note(site.dsn, [("heart", "alpha"), ("lung", "beta")])
    add(site.dsn, "opt-out", [("P1234567", "NORTH")], "alpha", "me", "")

    assert not site.standing("beta").opted_out


def test_without_patient_id_an_opt_out_of_a_former_project_holds_as_well(site: Site) -> None:
    note(site.dsn, [("heart", "alpha"), ("heart", "beta")])
    add(site.dsn, "opt-out", [("P9", "NORTH")], "alpha", "me", "")

    with connect(site.dsn) as connection:
        assert standing(connection, Identifier(value=""), "beta", None, SITE).former == "alpha"


def test_what_left_for_a_former_project_is_taken_back_whatever_was_decided_for_the_new_one(site: Site) -> None:
    site.send("1.2.3.6")
    site.project("beta")
    site.send("1.2.3.7")
    add(site.dsn, "opt-out", [("P1234567", "NORTH")], "alpha", "me", "")
    assert site.to_take_back("beta") == ["1.2.3.6", "1.2.3.7"]
    found = to_take_back(site.dsn, "study", "beta", SITE, consent=False)
    assert {each.output.sop_instance_uid: each.sure for each in found} == {"1.2.3.6": True, "1.2.3.7": False}

    decide(site.dsn, "alpha", "beta", carry=(), by="me", why="")

    assert site.to_take_back("beta") == ["1.2.3.6"]


def test_a_consent_to_the_project_of_then_keeps_what_left_for_it(site: Site) -> None:
    add(site.dsn, "consent", [("P1234567", "NORTH")], "alpha", "me", "")
    site.send("1.2.3.6")
    site.project("beta")
    site.send("1.2.3.7")

    assert site.to_take_back("beta", consent=True) == ["1.2.3.7"]


def test_what_left_is_found_by_another_identifier_that_it_names(site: Site) -> None:
    site.send("1.2.3.6", OtherPatientIDs=["X1", "X2"])
    add(site.dsn, "consent", [("X1", "")], "alpha", "me", "")
    assert site.to_take_back("alpha") == []
    assert site.to_take_back("alpha", consent=True) == ["1.2.3.6"]  # what is named besides consents to nothing

    add(site.dsn, "opt-out", [("x-2", "")], "alpha", "me", "")

    assert site.to_take_back("alpha") == ["1.2.3.6"]


def breaks_off(_: Delivery, part10: Part10) -> Settled:
    part10.file()
    raise Later("The association was aborted.")


@pytest.fixture
def taken_back(site: Site) -> Output:
    """Of an object that was taken back though nobody knew whether it was there; its delivery waits for a person."""
    enter(site.dsn, stored(site.store))
    site.work("1.2.3.6", "parked", Scripted(answer=breaks_off, policy="heart", max_attempts=1))
    (output,) = outputs(site.dsn, "heart")
    withdrawn(site.dsn, output)
    retry(site.settings, Selection(destination="study"))
    (output,) = outputs(site.dsn, "heart")
    assert output.withdrawn_at is not None
    return output


def test_what_was_taken_back_and_is_tried_again_keeps_when_that_was(site: Site, taken_back: Output) -> None:
    site.work("1.2.3.6", "parked", Scripted(answer=breaks_off, policy="heart", max_attempts=1))
    (perhaps,) = outputs(site.dsn, "heart")
    retry(site.settings, Selection(destination="study"))
    site.work("1.2.3.6")
    (left,) = outputs(site.dsn, "heart")
    assert site.to_take_back("alpha", consent=True) == ["1.2.3.6"]
    withdrawn(site.dsn, left)

    assert (perhaps.state, perhaps.withdrawn_at) == ("perhaps", taken_back.withdrawn_at)
    assert (left.state, left.withdrawn_at) == ("left", taken_back.withdrawn_at)
    (again,) = outputs(site.dsn, "heart")
    assert again.state == "withdrawn"
    assert again.withdrawn_at != taken_back.withdrawn_at


def test_what_was_taken_back_and_is_held_then_stays_taken_back(site: Site, taken_back: Output) -> None:
    add(site.dsn, "opt-out", [("P1234567", "NORTH")], "alpha", "me", "")

    site.work("1.2.3.6", "parked")

    (held,) = outputs(site.dsn, "heart")
    assert (held.state, held.withdrawn_at) == ("withdrawn", taken_back.withdrawn_at)
    assert site.to_take_back("alpha") == []


def test_a_configuration_that_changes_a_project_says_who_chose_about_the_former_one(site: Site) -> None:
    def in_force(policy: str, project: str) -> Settings:
        own = {name: getattr(site.settings, name) for name in Settings.__struct_fields__}
        own["destinations"] = {"study": {"type": "folder", "path": "/x", "policy": policy}}
        policies = {policy: {"version": "v", "policy": {"name": policy, "domain": project}}}
        return InForce(**own, version="v", policies=policies, applied=frozenset({"study"}))

    before, after = in_force("heart", "alpha"), in_force("heart", "beta")
    assert moved(before, after) == []
    add(site.dsn, "opt-out", [("P1", ""), ("P2", "")], "alpha", "me", "")

    (by_policy,) = moved(before, after)
    (by_destination,) = moved(before, in_force("lung", "gamma"))

    assert moved(before, before) == []
    assert (by_policy.policy, by_policy.former, by_policy.project, by_policy.opted_out) == ("heart", "alpha", "beta", 2)
    assert "until somebody decides: hilum deid projects carry alpha beta" in by_policy.says()
    assert (by_destination.destination, by_destination.former, by_destination.project) == ("study", "alpha", "gamma")
    assert "do not count for gamma" in by_destination.says()


def test_who_opts_out_of_a_project_whose_policy_is_gone_is_written_down(site: Site) -> None:
    note(site.dsn, [("gone", "omega")])

    assert site.command("patients", "add", "P1", "--project", "omega")["count"] == 1


def test_commands_show_what_waits_and_decide(site: Site) -> None:
    site.command("patients", "add", "P1", "--project", "alpha")
    site.project("beta")
    with pytest.raises(NotFound, match="No policy has had both"):
        site.command("projects", "release", "alpha", "beta", "--why", "none was meant", "--yes")
    note(site.dsn, [("heart", "alpha"), ("heart", "beta")])  # as what delivers does before anything leaves

    lines = {each["project"]: each for each in site.command("projects", "list")["projects"]}
    assert (lines["beta"]["policies"], lines["beta"]["undecided"]) == (["heart"], ["alpha"])
    assert (lines["alpha"]["policies"], lines["alpha"]["opted_out"]) == ([], 1)
    shown = site.command("patients", "list", "--project", "beta")
    assert [each["value"] for each in shown["patients"]] == ["P1"]
    assert shown["undecided"][0]["former"] == "alpha"
    assert site.command("projects", "carry", "alpha", "beta", "--dry-run")["new"] == 0
    assert site.command("projects", "carry", "alpha", "beta", "--yes")["new"] == 1
    assert undecided(site.dsn) == []
    assert site.command("patients", "end", "P1", "--project", "alpha")["count"] == 1
    site.command("projects", "release", "alpha", "beta", "--why", "none was meant", "--yes")
