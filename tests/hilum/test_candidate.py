from pathlib import Path
from typing import Any

import msgspec
import pytest

from hilum.anonymizing import policy_table
from hilum.candidate import Candidate, changes, effective, of_settings, read
from hilum.errors import Misconfigured, NotFound
from hilum.rule_sections import Rule
from hilum.settings import Settings

RULES = """
[[rules]]
name = "ct"
when = 'Modality == "CT"'
to = ["pacs"]
"""
PACS = """
[destinations.pacs]
type = "archive"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "b.toml").write_text(RULES)
    (tmp_path / "a.toml").write_text(PACS)
    return tmp_path


def test_the_files_of_a_directory_are_one_configuration(folder: Path) -> None:
    found = read(folder)

    assert found.destinations == {"pacs": {"type": "archive"}}
    assert [rule["name"] for rule in found.rules] == ["ct"]
    assert found.settings(Settings()).config_version == found.version


def test_rules_keep_the_order_of_the_files_names(folder: Path) -> None:
    (folder / "a2.toml").write_text(RULES.replace('"ct"', '"first"', 1))

    assert [rule["name"] for rule in read(folder).rules] == ["first", "ct"]


def test_rules_may_send_to_destinations_of_the_settings_file(folder: Path) -> None:
    (folder / "a.toml").unlink()

    assert list(read(folder).settings(Settings(destinations={"pacs": {"type": "archive"}})).destinations) == ["pacs"]


def test_without_a_file_there_is_nothing_to_apply(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no directory with files"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (RULES, r"The rule 'ct' is in .*b\.toml and in .*c\.toml"),
        (PACS, r"The destination 'pacs' is in .*a\.toml and in"),
        ("[dicom]\nport = 1", r"c\.toml has 'dicom', which cannot be applied"),
        ("[[rule]]\nname = 'x'", r"Did you mean rules\?"),
        ("[rules]\nname = 'x'", "two brackets"),
        ("[[rules]]\nto = []", r"rule #1 has no name"),
        ("x =", "is not TOML"),
        (
            "[[rules]]\nname = 'd'\nto = ['pacs']\ntests = [{ matches = true, header = { StudyDate = 2026-01-31 } }]",
            "Write dates and times as text",
        ),
        (
            "[destinations.copy]\ntype = 'archive'\nsecret_key = 'x'",
            r"copy\.secret_key is a secret, and would be published.*secret_key_file",
        ),
    ],
)
def test_what_cannot_be_applied_is_refused_with_its_file(folder: Path, more: str, sentence: str) -> None:
    (folder / "c.toml").write_text(more)

    with pytest.raises(Misconfigured, match=f"(?s){sentence}"):
        read(folder)


def test_a_secrets_value_is_not_in_the_refusal(folder: Path) -> None:
    (folder / "c.toml").write_text("[destinations.copy]\ntype = 'archive'\nsecret_key = 'not-to-be-shown'")

    with pytest.raises(Misconfigured) as stop:
        read(folder)

    assert "not-to-be-shown" not in str(stop.value)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("Modality", "Modalty", r"Did you mean Modality\?"),
        ("pacs", "pcs", r"Did you mean pacs\?"),
        ("when", "whem", r"no setting rules\[ct\]\.whem.*Did you mean when\?"),
        ('to = ["pacs"]', 'to = ["pacs"]\ntests = [{ matches = true, header = { Modality = "MR" } }]', "it is to match, and does not"),
        ('to = ["pacs"]', 'to = ["pacs"]\nstudy = "instances > 1"', 'for rules with `on = "study"`'),
    ],
)
def test_a_rule_that_cannot_work_or_fails_its_test_is_refused(folder: Path, old: str, new: str, sentence: str) -> None:
    (folder / "b.toml").write_text(RULES.replace(old, new, 1))

    with pytest.raises(Misconfigured, match=sentence):
        read(folder).settings(Settings())


def test_all_mistakes_are_said_at_once(folder: Path) -> None:
    (folder / "b.toml").write_text(RULES.replace("Modality", "Modalty") + RULES.replace('"ct"', '"other"').replace("Modality", "Rows + "))
    (folder / "a.toml").write_text(PACS + '[destinations.copy]\ntype = "archiv"\n')

    with pytest.raises(Misconfigured) as stop:
        read(folder).settings(Settings())

    for part in ("3 mistakes in the rules and destinations:", "Modalty", "'other'", "archiv"):
        assert part in str(stop.value)


# Policies

LAB = """
[destinations.lab]
type = "folder"
path = "/lab"
policy = "mine"
"""


def test_policies_that_destinations_name_are_part_of_what_is_published(folder: Path) -> None:
    (folder / "a.toml").write_text(PACS + LAB)
    (folder / "policies").mkdir()
    (folder / "policies" / "mine.toml").write_text("options = []")
    first = read(folder)
    (folder / "policies" / "mine.toml").write_text('options = ["retain-uids"]')
    second = read(folder)

    assert list(first.policies) == ["mine"]
    assert first.version != second.version
    assert [(each.change, each.what, each.name) for each in changes(first, second)] == [("changed", "policy", "mine")]
    assert first.settings(Settings()).config_version == first.version


def test_everything_that_is_wrong_with_a_policy_is_said_before_it_is_published(folder: Path) -> None:
    (folder / "a.toml").write_text(PACS + LAB)
    (folder / "policies").mkdir()
    (folder / "policies" / "mine.toml").write_text('options = ["retain-uid"]\n[attributes]\nPatientNam = "keep"\n')

    with pytest.raises(Misconfigured) as stop:
        read(folder)

    assert "retain-uid'" in str(stop.value)
    assert "PatientNam" in str(stop.value)


def test_a_policy_that_is_nowhere_is_not_published(folder: Path) -> None:
    (folder / "a.toml").write_text(PACS + LAB)

    with pytest.raises(Misconfigured, match="There is no policy 'mine'"):
        read(folder)


# Comparing


def a_candidate(*rules: dict[str, Any], **destinations: dict[str, Any]) -> Candidate:
    return Candidate(destinations=destinations, rules=rules)


CT: dict[str, Any] = {"name": "ct", "when": "true", "to": ["pacs"]}


@pytest.mark.parametrize(
    ("after", "what"),
    [
        (a_candidate(CT, pacs={"type": "archive"}), []),
        (a_candidate(pacs={"type": "archive"}), [("removed", "rule", "ct")]),
        (a_candidate(CT), [("removed", "destination", "pacs")]),
        (a_candidate(CT, {**CT, "name": "mr"}, pacs={"type": "archive"}), [("added", "rule", "mr")]),
        (a_candidate({**CT, "when": "false"}, pacs={"type": "archive"}), [("changed", "rule", "ct")]),
        (a_candidate(CT, pacs={"type": "dicom"}), [("changed", "destination", "pacs")]),
    ],
)
def test_what_is_different_is_named(after: Candidate, what: list[tuple[str, str, str]]) -> None:
    found = changes(a_candidate(CT, pacs={"type": "archive"}), after)

    assert [(each.change, each.what, each.name) for each in found] == what


def test_a_changed_key_is_shown_before_and_after() -> None:
    [change] = changes(a_candidate(CT), a_candidate({**CT, "priority": 2}))

    assert change.keys == {"priority": (None, 2)}


def test_another_order_of_the_same_rules_is_a_change() -> None:
    other = {**CT, "name": "mr"}

    assert [each.change for each in changes(a_candidate(CT, other), a_candidate(other, CT))] == ["moved"]


OWN = Settings(
    rules=(Rule(name="everything", when="true", to=("pacs",)), Rule(name="ct", when=CT["when"], to=tuple(CT["to"]))),
    destinations={"pacs": {"type": "archive", "secret_key": "HIDDEN"}, "old": {"type": "archive"}},
)


def test_the_first_configuration_is_held_against_the_settings() -> None:
    first = a_candidate(CT, pacs={"type": "archive"}, new={"type": "archive"})

    found = changes(effective(OWN, None), effective(OWN, first))

    assert [(each.what, each.name, each.change) for each in found] == [
        ("destination", "pacs", "changed"),
        ("destination", "new", "added"),
        ("rule", "everything", "removed"),
    ]
    assert "HIDDEN" not in repr(found)


def test_the_same_rule_is_the_same_however_its_defaults_are_written() -> None:
    assert changes(a_candidate(CT), a_candidate({**CT, "priority": 0, "on": "instance", "tests": []})) == []


def test_the_rules_of_the_settings_can_be_published_as_they_are() -> None:
    own = of_settings(OWN)

    assert own.settings(OWN).rules == OWN.rules
    assert changes(effective(OWN, None), effective(OWN, own)) == []


def test_a_policy_that_is_as_it_was_published_is_no_change(tmp_path: Path) -> None:
    mask = '[[masks]]\nmanufacturer = "acme"\nboxes = [[0, 0, 10, 10]]\n'
    (tmp_path / "mine.toml").write_text(f'options = ["retain-device-identity"]\n{mask}')
    table = policy_table("mine", tmp_path)
    published = msgspec.json.decode(msgspec.json.encode(table))

    def candidate(policy: dict[str, Any]) -> Candidate:
        return Candidate(destinations={}, rules=(), policies={"mine": policy})

    assert changes(candidate(published), candidate(table)) == []
    assert [each.name for each in changes(candidate(published), candidate({**table, "version": "0"}))] == ["mine"]
