"""The way back from pseudonyms: kept only where a policy asks for it, before anything leaves, and each look-up is written down."""

from __future__ import annotations

import json
import os
import pwd
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from typer.testing import CliRunner, Result

from hilum.anonymizing import policy_table
from hilum.cli import app
from hilum.database import connect
from hilum.deid_sections import Deid
from hilum.errors import HilumError, Misconfigured, NotFound
from hilum.part10 import Part10
from hilum.sink import Delivery, Settled
from hilum.testing import MemoryStore, eventually
from tests.hilum.test_anonymizing import SECRET, stored
from tests.ledger import DELIVERED, Scripted, enter, rows, working

pytestmark = pytest.mark.system


class Site:
    """A destination whose policy asks for the way back, or does not."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.dsn, self.folder, self.store = dsn, folder, MemoryStore()
        self.key, self.back = folder / "key", folder / "back"
        for file, secret in ((self.key, SECRET), (self.back, SECRET[::-1])):
            file.write_text(secret)
            file.chmod(0o600)
        self.config = folder / "hilum.toml"
        self.config.write_text(
            f'[postgres]\ndsn = "{dsn}"\n[kafka]\nbootstrap = "127.0.0.1:1"\n[s3]\nendpoint = "http://127.0.0.1:1"\n'
            f'[deid]\nkey_path = "{self.key}"\nreverse_key_path = "{self.back}"\n'
        )
        self.kept_at_sending: list[int] = []

    def deliver(self, policy: str) -> dict[str, Any]:
        (self.folder / "mine.toml").write_text(policy)
        deid = Deid(key_path=str(self.key), reverse_key_path=str(self.back), policies=str(self.folder))
        enter(self.dsn, stored(self.store))
        with working(self.dsn, self.store, Scripted(answer=self._takes, policy="mine"), name="study", deid=deid):
            eventually(lambda: rows(self.dsn)["1.2.3.6"]["state"] == "delivered")
        return rows(self.dsn)["1.2.3.6"]

    def _takes(self, _: Delivery, part10: Part10) -> Settled:
        part10.head(1)
        self.kept_at_sending.append(self.count("deid_reverse"))
        return DELIVERED

    def count(self, table: str) -> int:
        with connect(self.dsn) as connection:
            row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()
        assert row is not None
        return int(row[0])

    def ask(self, *words: str) -> Result:
        return CliRunner().invoke(app, ["deid", *words, "--config", str(self.config), "--json"])

    def pseudonym(self) -> str:
        with connect(self.dsn) as connection:
            row = connection.execute("SELECT sent_patient FROM deidentified").fetchone()
        assert row is not None
        return str(row[0])


@pytest.fixture
def site(postgres: str, tmp_path: Path) -> Site:
    return Site(postgres, tmp_path)


def test_a_pseudonym_and_a_uid_that_left_lead_back_and_the_look_ups_are_listed(site: Site) -> None:
    sent = site.deliver("reverse = true")

    assert site.kept_at_sending == [5]  # patient, accession, study, series, instance
    found = json.loads(site.ask("lookup", site.pseudonym(), "--project", "mine", "--why", "incidental finding").stdout)["found"]
    assert found == [{"kind": "patient", "value": "P1234567", "issuer": "NORTH"}]
    found = json.loads(site.ask("lookup", sent["sent_as"], "--project", "mine", "--why", "query").stdout)["found"]
    assert found == [{"kind": "uid", "value": "1.2.3.6", "issuer": ""}]
    looked = json.loads(site.ask("lookups").stdout)["lookups"]
    assert [(each["pseudonym"], each["why"]) for each in looked] == [(site.pseudonym(), "incidental finding"), (sent["sent_as"], "query")]
    assert "P1234567" not in str(looked)


def test_a_policy_that_does_not_ask_keeps_no_way_back(site: Site) -> None:
    site.deliver("options = []")

    assert site.count("deid_reverse") == 0
    assert isinstance(site.ask("lookup", site.pseudonym(), "--project", "mine", "--why", "w").exception, NotFound)
    assert site.count("deid_lookup") == 1


def test_without_the_key_nothing_is_answered_or_kept(site: Site) -> None:
    site.deliver("reverse = true")
    site.back.unlink()

    asked = site.ask("lookup", site.pseudonym(), "--project", "mine", "--why", "w")

    assert isinstance(asked.exception, Misconfigured)
    assert "P1234567" not in asked.output
    assert site.count("deid_lookup") == 0


def test_what_cannot_be_written_down_is_not_answered(site: Site) -> None:
    site.deliver("reverse = true")
    with connect(site.dsn) as connection:
        connection.execute("ALTER TABLE deid_lookup ADD CONSTRAINT full_disk CHECK (why <> 'w')")

    asked = site.ask("lookup", site.pseudonym(), "--project", "mine", "--why", "w")

    assert isinstance(asked.exception, HilumError)
    assert "not answered" in str(asked.exception)
    assert "P1234567" not in asked.output


def test_who_asked_is_who_the_machine_says_it_is(site: Site) -> None:
    words = ["deid", "lookup", "X", "--project", "mine", "--why", "w", "--config", str(site.config)]
    CliRunner().invoke(app, words, env={"LOGNAME": "somebody-else", "USER": "somebody-else"})

    (looked,) = json.loads(site.ask("lookups").stdout)["lookups"]
    assert looked["who"] == pwd.getpwuid(os.getuid()).pw_name
    assert looked["database_user"]


def test_the_audit_is_only_added_to(site: Site) -> None:
    site.ask("lookup", "X", "--project", "mine", "--why", "w")

    with connect(site.dsn) as connection:
        for change in ("DELETE FROM deid_lookup", "UPDATE deid_lookup SET why = 'x'", "TRUNCATE deid_lookup"):
            with pytest.raises(psycopg.errors.RaiseException):
                connection.execute(change.encode())
    assert site.count("deid_lookup") == 1


def test_to_keep_the_way_back_changes_nothing_of_what_leaves(tmp_path: Path) -> None:
    versions = []
    for name, text in (("a", ""), ("b", "reverse = true")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.toml").write_text(text)
        versions.append(policy_table("mine", tmp_path / name)["version"])

    assert versions[0] == versions[1]


def test_what_a_version_of_a_policy_said_is_kept_with_what_left_by_it(site: Site) -> None:
    sent = site.deliver('options = ["retain-device-identity"]')
    (site.folder / "mine.toml").unlink()
    words = ["deid", "policies", "show", "mine", "--config", str(site.config), "--version"]

    kept = json.loads(CliRunner().invoke(app, [*words, sent["policy_version"]]).stdout)

    assert (kept["version"], kept["policy"]["options"]) == (sent["policy_version"], ["retain-device-identity"])
    assert isinstance(CliRunner().invoke(app, [*words, "000000000000"]).exception, NotFound)
