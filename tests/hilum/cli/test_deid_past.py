"""How `hilum deid` answers about the past, with Kafka and PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner, Result

from hilum.cli import app
from hilum.database import connect
from hilum.errors import Misconfigured, NotFound
from hilum.settings import Postgres
from hilum.testing import MemoryStore, eventually
from tests.conftest import Log
from tests.hilum.cli.test_deliver_command import error_of, topics_answer
from tests.hilum.test_anonymizing import SECRET, stored
from tests.ledger import enter

pytestmark = pytest.mark.system

Hilum = Callable[..., Result]


@pytest.fixture
def hilum(log: Log, postgres: str, tmp_path: Path) -> Hilum:
    """Run a command as a person would, on a machine with a destination `later` that has the policy `research`."""
    log.make()
    settings = replace(log.settings, postgres=Postgres(dsn=postgres))
    eventually(partial(topics_answer, settings))
    key, config = tmp_path / "key", tmp_path / "hilum.toml"
    key.write_text(SECRET)
    key.chmod(0o600)
    config.write_text(
        f'[deid]\nkey_path = "{key}"\npolicies = "/nonexistent"\n'
        f'[destinations.later]\ntype = "folder"\npath = "{tmp_path}"\npolicy = "research"\n'
        f'[destinations.same]\ntype = "folder"\npath = "{tmp_path}"\npolicy = "research"\n'
        '[destinations.study]\ntype = "folder"\npath = "/elsewhere"\npolicy = "research"\n'
    )
    kafka = {f"HILUM_KAFKA__{name.upper()}": str(getattr(settings.kafka, name)) for name in settings.kafka.__struct_fields__}
    environment = kafka | {"HILUM_CONFIG": str(config), "HILUM_POSTGRES__DSN": postgres, "HILUM_S3__ENDPOINT": "http://127.0.0.1:1"}
    environment |= {"HILUM_S3__ACCESS_KEY": "none", "HILUM_S3__SECRET_KEY": "none"}

    def run(*words: str) -> Result:
        return CliRunner().invoke(app, ["deid", *words], env=environment)

    return run


def test_commands_about_the_past_answer_where_there_is_none(hilum: Hilum) -> None:
    rerun = ("rerun", "--policy", "research", "--to", "later", "--since", "90d")

    compared = hilum(*rerun, "--dry-run", "--json")
    said = json.loads(compared.stdout)

    assert (compared.exit_code, said["counts"]["objects"], said["attributes"]) == (0, 0, [])
    assert json.loads(hilum(*rerun, "--json").stdout)["objects"] == 0
    assert isinstance(error_of(hilum(*rerun, "--yes")), NotFound)
    assert isinstance(error_of(hilum("rerun", "--policy", "basic", "--to", "later", "--since", "90d")), Misconfigured)
    assert isinstance(error_of(hilum(*rerun, "--from", "later")), Misconfigured)
    assert isinstance(error_of(hilum("preview", "1.2.3", "--policy", "research")), NotFound)
    assert json.loads(hilum("links", "--json").stdout) == {"links": []}


def left(dsn: str, destination: str, version: str, key_id: str) -> None:
    """An object that left by a version of the policy `research` for a destination."""
    enter(dsn, replace(stored(MemoryStore()), destination=destination, delivery_id=f"to-{destination}"))
    with connect(dsn) as connection:
        connection.execute("UPDATE delivery SET state = 'delivered', settled_at = now() WHERE destination = %s", (destination,))
        connection.execute(
            "INSERT INTO deidentified (delivery_id, destination, policy, policy_version, key_id, study_instance_uid, sop_instance_uid,"
            " sent_study, sent_series, sent_as, sent_at, project) SELECT delivery_id, destination, 'research', %s, %s, study_instance_uid,"
            " sop_instance_uid, '2.25.1', '2.25.2', '2.25.3', now(), 'research' FROM delivery WHERE destination = %s",
            (version, key_id, destination),
        )


def test_a_rerun_replaces_nothing_that_another_version_made(hilum: Hilum, postgres: str) -> None:
    rerun = ("rerun", "--policy", "research", "--since", "90d", "--to")
    [key] = json.loads(hilum("keys", "list", "--json").stdout)["keys"]
    left(postgres, "study", "former", key["id"])
    assert json.loads(hilum(*rerun, "later", "--json").stdout)["objects"] == 1

    left(postgres, "later", "former", key["id"])

    for option in ("--yes", "--dry-run", "--json"):
        assert reason_of(hilum(*rerun, "later", option)) == "destination-has-them"
    assert reason_of(hilum(*rerun, "same", "--yes")) == "destination-has-them"  # another name of the same folder
    assert reason_of(hilum(*rerun, "same", "--from", "later", "--yes")) == "destination-same"
    with connect(postgres) as connection:
        connection.execute("UPDATE deidentified SET withdrawn_at = now() WHERE destination = 'later'")
    assert json.loads(hilum(*rerun, "later", "--json").stdout)["objects"] == 1


def test_a_rerun_from_a_destination_of_which_nobody_heard_is_refused(hilum: Hilum) -> None:
    refused = error_of(hilum("rerun", "--policy", "research", "--since", "90d", "--to", "later", "--from", "studdy", "--yes"))

    assert isinstance(refused, NotFound)
    assert "Did you mean study?" in refused.fix


def reason_of(result: Result) -> str:
    error = error_of(result)
    assert isinstance(error, Misconfigured)
    return error.reason
