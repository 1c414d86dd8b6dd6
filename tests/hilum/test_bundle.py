from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Self

import pytest

from hilum.bundle import Bundle, Following, current, history, in_force, version_of
from hilum.errors import Misconfigured, TryAgain
from hilum.events import ConfigApplied
from hilum.rule_sections import Rule
from hilum.settings import Settings
from hilum.testing import eventually

CT: dict[str, Any] = {"name": "ct", "when": 'Modality == "CT"', "to": ["pacs"]}
PACS: dict[str, Any] = {"type": "archive"}


def applied(*rules: dict[str, Any], **destinations: dict[str, Any]) -> ConfigApplied:
    return ConfigApplied(version=version_of(destinations, rules), destinations=destinations, rules=rules, applied_at=datetime.now(UTC))


def a_bundle(offset: int, *rules: dict[str, Any], **destinations: dict[str, Any]) -> Bundle:
    return Bundle(applied=applied(*rules, **destinations), offset=offset)


class Topic:
    """The topic as a list."""

    def __init__(self, *said: Bundle | Misconfigured) -> None:
        self.said = list(said)
        self.away = False
        self._next = 0

    def __call__(self, settings: Settings) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def begin(self, since: int) -> int:
        if self.away:
            raise TryAgain("Kafka does not answer.")
        self._next = since if since >= 0 else max(0, len(self.said) - 1)
        return len(self.said)

    def more(self, timeout_s: float) -> Iterator[tuple[int, Bundle | Misconfigured]]:
        threading.Event().wait(min(timeout_s, 0.01))
        while self._next < len(self.said):
            self._next += 1
            yield self._next - 1, self.said[self._next - 1]


class Part:
    """A role's part that is configured; it refuses what has a rule by the name `bad`."""

    def __init__(self, following: Following) -> None:
        self.following = following
        self.settings: list[Settings] = []

    def configure(self, settings: Settings) -> None:
        if any(rule.name == "bad" for rule in settings.rules):
            raise Misconfigured("rule-invalid", "Rule 'bad' cannot be read.", fix="Correct it.")
        self.settings.append(settings)

    def took(self) -> bool:
        return self.following.take(self.configure)

    def begins(self) -> None:
        def begun() -> bool:
            try:
                return self.took()
            except TryAgain:
                return False

        eventually(begun, what="the first configuration")


NO_DATABASE = Settings()
UNREADABLE = Misconfigured("config-unreadable", "The published configuration at offset 1 cannot be read.", fix="Take the release.")


def test_without_any_bundle_the_settings_file_holds() -> None:
    settings = Settings(rules=(Rule(name="all", when="true", to=()),))

    with Following(settings, "route", Topic()) as following:
        part = Part(following)
        part.begins()

    assert part.settings == [settings]
    assert following.version == settings.config_version


def test_rules_of_a_bundle_take_the_place_of_the_files_and_destinations_stand_beside_them() -> None:
    settings = Settings(rules=(Rule(name="all", when="true", to=()),), destinations={"own": PACS, "pacs": {"type": "dicom"}})

    found = in_force(settings, a_bundle(0, CT, pacs=PACS))

    assert [rule.name for rule in found.rules] == ["ct"]
    assert found.destinations == {"own": PACS, "pacs": PACS}
    assert found.config_version == a_bundle(7, CT, pacs=PACS).version


def test_equal_configurations_have_one_version_and_others_another() -> None:
    assert version_of({"a": PACS, "b": PACS}, (CT,)) == version_of({"b": PACS, "a": PACS}, (CT,))
    assert version_of({"a": PACS}, (CT,)) != version_of({"a": PACS}, ())


def test_only_the_last_of_what_was_published_is_taken_at_first() -> None:
    with Following(NO_DATABASE, "route", Topic(a_bundle(0, CT), a_bundle(1))) as following:
        part = Part(following)
        part.begins()

    assert [settings.rules for settings in part.settings] == [()]


def test_a_new_version_is_taken_once() -> None:
    topic = Topic(a_bundle(0, CT))
    with Following(NO_DATABASE, "route", topic) as following:
        part = Part(following)
        part.begins()
        topic.said.append(a_bundle(1))
        eventually(part.took)

        assert not part.took()
        assert following.version == topic.said[1].version  # type: ignore[union-attr]


def test_a_version_that_cannot_be_run_leaves_the_one_before_in_force() -> None:
    topic = Topic(a_bundle(0, CT))
    with Following(NO_DATABASE, "route", topic) as following:
        part = Part(following)
        part.begins()
        before = following.version
        topic.said += [a_bundle(1, {**CT, "name": "bad"}), a_bundle(2)]
        eventually(part.took)

        assert len(part.settings) == 2
        assert following.version != before


def test_what_cannot_be_run_is_tried_again_since_a_file_of_this_machine_may_be_missing() -> None:
    topic = Topic(a_bundle(0))
    with Following(NO_DATABASE, "route", topic, again_s=0.0) as following:
        part = Part(following)
        part.begins()
        topic.said.append(a_bundle(1, CT))
        missing = [Misconfigured("secret-unreadable", "A file is missing.", fix="Put it there.")] * 3

        def configure(settings: Settings) -> None:
            if settings.rules and missing:
                raise missing.pop()

        eventually(lambda: following.take(configure))

    assert missing == []
    assert following.version == topic.said[1].version  # type: ignore[union-attr]


@pytest.mark.parametrize("last", [UNREADABLE, a_bundle(0, {**CT, "name": "bad"})], ids=["unreadable", "refused"])
def test_a_role_that_has_nothing_to_run_waits_and_says_why(last: Bundle | Misconfigured) -> None:
    topic = Topic(last)
    with Following(NO_DATABASE, "route", topic) as following:
        part = Part(following)

        def said() -> str:
            try:
                part.took()
            except TryAgain as error:
                return str(error)
            return ""

        assert eventually(lambda: "cannot be run here" in said())
        assert "cannot be run here" in said()
        topic.said.append(a_bundle(1))
        part.begins()


def test_while_kafka_is_away_a_role_does_not_begin_with_an_old_configuration() -> None:
    topic = Topic(a_bundle(0, CT))
    topic.away = True
    with Following(NO_DATABASE, "route", topic) as following:
        part = Part(following)

        with pytest.raises(TryAgain, match="is not known"):
            part.took()

        topic.away = False
        part.begins()


def test_what_is_wrong_in_the_settings_file_alone_ends_the_role() -> None:
    settings = Settings(rules=(Rule(name="bad", when="true", to=()),))
    with Following(settings, "route", Topic()) as following:
        part = Part(following)

        def outcome() -> str:
            try:
                part.took()
            except TryAgain:
                return ""
            except Misconfigured as error:
                return error.reason
            return "taken"

        assert eventually(outcome) == "rule-invalid"


def test_a_rule_with_a_key_of_a_newer_release_is_refused() -> None:
    with pytest.raises(Misconfigured, match="whenever"):
        in_force(NO_DATABASE, a_bundle(0, {**CT, "whenever": "true"}))


@pytest.mark.system
class TestOnKafka:
    def test_what_was_published_is_read_in_its_order(self, log: Any) -> None:
        log.make()
        assert current(log.settings) is None
        log.say(applied(CT), applied())

        assert [bundle.offset for bundle in history(log.settings)] == [0, 1]
        found = current(log.settings)
        assert found is not None
        assert found.applied.rules == ()

    def test_a_role_takes_what_is_published_while_it_runs(self, log: Any) -> None:
        log.make()
        with Following(log.settings, "route") as following:
            part = Part(following)
            part.begins()
            log.say(applied(CT))
            eventually(part.took)

            assert [rule.name for rule in part.settings[-1].rules] == ["ct"]
