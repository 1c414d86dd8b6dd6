"""`hilum apply` where policies are taken off destinations, or let out more: it says what will leave, and asks for --yes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from hilum.bundle import current
from hilum.candidate import Candidate
from hilum.cli import app
from hilum.errors import Refused
from hilum.loosened import looser
from hilum.settings import Postgres, Settings
from tests.conftest import Log

UNDER: dict[str, Any] = {"type": "folder", "path": "/srv/share", "policy": "research"}
BARE: dict[str, Any] = {"type": "folder", "path": "/srv/share"}


def settings_of(**destinations: dict[str, Any]) -> Settings:
    """Settings with destinations of the settings file."""
    return Settings(destinations=destinations)


def test_a_policy_that_is_taken_off_is_said() -> None:
    [found] = looser(settings_of(share=UNDER), settings_of(share=BARE))

    assert (found.destination, found.policy) == ("share", "research")
    assert found.says().startswith("The destination share: the policy research is taken off: objects will leave as they are, with names")


def test_an_applied_destination_that_takes_the_name_of_one_with_a_policy_is_said() -> None:
    before = settings_of(share=UNDER)
    after = Candidate(destinations={"share": BARE}, rules=()).settings(before)

    assert [each.destination for each in looser(before, after)] == ["share"]


def test_another_policy_of_a_destination_is_compared_with_its_former_one() -> None:
    found = looser(settings_of(share=UNDER | {"policy": "basic"}), settings_of(share=UNDER))

    assert {each.destination for each in found} == {"share"}
    assert any("by the policy research (was basic) dates, shifted, will leave" in each.what for each in found)
    assert not any("dates" in each.what for each in looser(settings_of(share=UNDER), settings_of(share=UNDER | {"policy": "basic"})))


def test_consent_that_is_not_asked_for_any_more_is_said() -> None:
    consent, again = {"patients": "consent"}, {"deidentified": "again"}

    assert len(looser(settings_of(share=UNDER | consent), settings_of(share=UNDER))) == 1
    assert looser(settings_of(share=UNDER), settings_of(share=UNDER | consent)) == []
    assert len(looser(settings_of(share=UNDER), settings_of(share=UNDER | again))) == 1
    assert looser(settings_of(share=UNDER | again), settings_of(share=UNDER)) == []


def test_a_destination_of_the_settings_file_that_stays_as_it_is_is_not_asked_about() -> None:
    elsewhere = settings_of(share=UNDER | {"policy": "whose-file-is-on-another-machine"})

    assert looser(elsewhere, settings_of(**elsewhere.destinations, new=BARE)) == []
    assert [each.what for each in looser(elsewhere, settings_of(share=UNDER))] != []


def test_a_new_destination_takes_nothing_off() -> None:
    assert looser(settings_of(), settings_of(share=BARE)) == []
    assert looser(settings_of(share=UNDER), settings_of()) == []


@pytest.fixture
def hilum(log: Log, postgres: str, tmp_path: Path) -> Callable[..., Result]:
    log.make()
    kafka = {f"HILUM_KAFKA__{name.upper()}": str(getattr(log.settings.kafka, name)) for name in log.settings.kafka.__struct_fields__}
    config = str(tmp_path / "own.toml")
    environment = kafka | {"HILUM_POSTGRES__DSN": postgres, "HILUM_S3__ENDPOINT": "http://none:1", "HILUM_CONFIG": config}
    (tmp_path / "own.toml").write_text('[roles]\nprocesses = ["index"]\n')

    def run(*words: str) -> Result:
        return CliRunner().invoke(app, words, env=environment)

    return run


def written(folder: Path, policy: str, destination: str = 'policy = "mine"') -> list[str]:
    """A configuration with a policy `mine`, and the words that apply it."""
    (folder / "config" / "policies").mkdir(parents=True, exist_ok=True)
    (folder / "config" / "policies" / "mine.toml").write_text(policy)
    (folder / "config" / "destinations.toml").write_text(f'[destinations.share]\ntype = "folder"\npath = "/srv/share"\n{destination}\n')
    return ["apply", "-f", str(folder / "config"), "--timeout", "0"]


@pytest.mark.system
def test_apply_says_in_words_what_will_leave_and_goes_on_with_yes_alone(hilum: Callable[..., Result], log: Log, tmp_path: Path) -> None:
    first = hilum(*written(tmp_path, 'options = ["retain-modified-dates"]'))
    assert first.exit_code == 0, first.output

    full = written(tmp_path, 'options = ["retain-full-dates"]')
    tried = hilum(*full, "--dry-run")
    assert "The policy mine: full dates will leave (were shifted)." in tried.output
    assert "it would be refused without --yes" in tried.output
    told = json.loads(hilum(*full, "--dry-run", "--json").stdout)
    assert told["looser"] == [{"destination": "", "policy": "mine", "what": "full dates will leave (were shifted)"}]
    before = current(msgspec.structs.replace(log.settings, postgres=Postgres()))
    refused = hilum(*full).exception
    assert isinstance(refused, Refused)
    assert "full dates will leave (were shifted)" in str(refused)
    assert current(log.settings) == before
    assert hilum(*full, "--yes").exit_code == 0

    bare = written(tmp_path, "", "")
    assert isinstance(hilum(*bare).exception, Refused)
    assert hilum(*bare, "--yes").exit_code == 0
    assert isinstance(hilum("config", "rollback", "--timeout", "0").exception, type(None))
