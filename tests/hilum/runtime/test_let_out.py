"""No more leaves for a destination than was accepted, whatever the files of a machine say."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner, Result

from hilum import bus
from hilum.bundle import InForce
from hilum.cli import app
from hilum.database import connect
from hilum.database.let_out import Door, accept, listed
from hilum.deid_sections import Deid
from hilum.errors import Misconfigured, NotFound
from hilum.loosened import LetsOut, lets_out, members_of
from hilum.runtime.delivery.cleans import cleans_of, door_of
from hilum.runtime.delivery.orders import Orders
from hilum.runtime.delivery.queue import Queue
from hilum.runtime.delivery.worker import Shared, Worker
from hilum.settings import Postgres, Settings
from hilum.sink import sink_of
from hilum.testing import MemoryStore, eventually
from tests.conftest import Log
from tests.hilum.test_anonymizing import key_file, stored
from tests.ledger import DELIVERED, Scripted, enter, rows, working

SHIFTED, FULL, NONE = 'options = ["retain-modified-dates"]', 'options = ["retain-full-dates"]', ""


class Machine:
    """A machine with settings and a policy `mine` of its own, before one database with others."""

    def __init__(self, folder: Path, dsn: str, key: Path) -> None:
        self.dsn, self._folder, self._key = dsn, folder, key
        (folder / "policies").mkdir(parents=True)

    def settings(self, policy: str | None, **more: Any) -> Settings:
        """With the policy as this text says, or a destination without one if it is None."""
        if policy is not None:
            (self._folder / "policies" / "mine.toml").write_text(policy)
        table = {"type": "folder", "path": "/srv/share"} | ({"policy": "mine"} if policy is not None else {}) | more
        deid = Deid(key_path=str(self._key), policies=str(self._folder / "policies"))
        return Settings(postgres=Postgres(dsn=self.dsn), deid=deid, destinations={"share": table})

    def begin(self, policy: str | None, **more: Any) -> None:
        """As a worker does before a batch. Raises `Misconfigured`."""
        let_out(self.settings(policy, **more))

    def accept(self, policy: str | None, **more: Any) -> None:
        """As the command does."""
        accept(self.dsn, [("share", lets_out("share", self.settings(policy, **more)))], by="me", why="letter")


def let_out(settings: Settings, name: str = "share") -> None:
    """Hold what a destination lets out against what was accepted. Raises `Misconfigured`."""
    sink = sink_of(name, settings.destinations[name])
    with connect(settings.postgres.dsn) as connection:
        door_of(name, sink, cleans_of(name, sink, settings), settings).check(connection)


def grouped(settings: Settings, **more: Any) -> Settings:
    """With a group `all` before the destination."""
    return replace(settings, destinations={**settings.destinations, "all": {"type": "group", "members": ["share"], **more}})


def with_group(machine: Machine, **of_member: Any) -> Settings:
    return grouped(machine.settings(SHIFTED, **of_member), policy="mine")


def accept_group(settings: Settings) -> None:
    """As the command does."""
    members = {"all": members_of("all", settings)}
    accept(settings.postgres.dsn, [("all", lets_out("all", settings))], members=members, by="me", why="letter")


@pytest.fixture
def machine(postgres: str, tmp_path: Path) -> Machine:
    return Machine(tmp_path / "first", postgres, key_file(tmp_path))


@pytest.fixture
def other(postgres: str, tmp_path: Path) -> Machine:
    return Machine(tmp_path / "second", postgres, tmp_path / "key")


pytestmark = pytest.mark.system


class TestOneMachine:
    def test_begins_with_what_it_has_and_goes_on_with_it(self, machine: Machine) -> None:
        machine.begin(SHIFTED)
        machine.begin(SHIFTED)

        assert [(each.said.policy, each.accepted_by) for each in listed(machine.dsn)] == [("mine", "the first machine")]

    def test_keeps_nothing_of_destinations_that_never_had_a_policy(self, machine: Machine) -> None:
        machine.begin(None)

        assert listed(machine.dsn) == []

    def test_with_a_looser_policy_lets_nothing_out_and_says_what_would_leave(self, machine: Machine) -> None:
        machine.begin(SHIFTED)

        with pytest.raises(Misconfigured, match=r"full dates will leave \(were shifted\)\. Nothing leaves.*hilum deid policies accept"):
            machine.begin(FULL)

    def test_with_the_policy_taken_off_lets_nothing_out(self, machine: Machine) -> None:
        machine.begin(SHIFTED)

        with pytest.raises(Misconfigured, match="the policy mine is taken off: objects will leave as they are, with names"):
            machine.begin(None)

    @pytest.mark.parametrize(("before", "after"), [({"patients": "consent"}, {}), ({}, {"deidentified": "again"})])
    def test_that_asks_for_less_lets_nothing_out(self, machine: Machine, before: dict[str, str], after: dict[str, str]) -> None:
        machine.begin(SHIFTED, **before)

        with pytest.raises(Misconfigured, match="will leave"):
            machine.begin(SHIFTED, **after)

    def test_lets_out_less_without_asking_and_not_more_again(self, machine: Machine) -> None:
        machine.begin(FULL)
        machine.begin(SHIFTED)

        with pytest.raises(Misconfigured, match="full dates"):
            machine.begin(FULL)

    def test_lets_out_what_was_accepted(self, machine: Machine) -> None:
        machine.begin(SHIFTED)
        machine.accept(FULL)
        machine.begin(FULL)
        machine.accept(None)
        machine.begin(None)

        assert [each.accepted_by for each in listed(machine.dsn)] == ["the first machine", "me", "me"]

    def test_says_the_same_in_other_words_without_a_row(self, machine: Machine) -> None:
        machine.begin(SHIFTED)
        machine.begin(f'summary = "another"\n{SHIFTED}')
        machine.begin(f"words = []\n{SHIFTED}")

        assert len(listed(machine.dsn)) == 1

    def test_goes_by_what_was_put_down_last_though_its_clock_was_ahead_then(self, machine: Machine) -> None:
        machine.begin(FULL)
        with connect(machine.dsn) as connection:
            connection.execute("UPDATE let_out SET accepted_at = now() + interval '1 day'")
        machine.begin(SHIFTED)

        with pytest.raises(Misconfigured, match="full dates"):
            machine.begin(FULL)
        assert [each.accepted_by for each in listed(machine.dsn)] == ["the first machine", "a machine that lets out less"]


class TestTwoMachines:
    def test_the_one_with_the_old_files_lets_nothing_out_once_less_leaves(self, machine: Machine, other: Machine) -> None:
        machine.begin(FULL)
        other.begin(FULL)
        machine.begin(SHIFTED)

        with pytest.raises(Misconfigured, match="full dates"):
            other.begin(FULL)

    def test_the_one_with_the_old_files_changes_nothing_of_what_was_accepted(self, machine: Machine, other: Machine) -> None:
        machine.begin(SHIFTED)
        machine.accept(FULL)

        with pytest.raises(Misconfigured, match="share has here what held before"):
            other.begin(SHIFTED)
        machine.begin(FULL)

    def test_the_one_with_the_old_files_changes_nothing_by_another_order_of_options(self, machine: Machine, other: Machine) -> None:
        machine.begin('options = ["retain-modified-dates", "retain-device-identity"]')
        machine.accept('options = ["retain-full-dates", "retain-device-identity"]')

        with pytest.raises(Misconfigured, match="share has here what held before"):
            other.begin('options = ["retain-device-identity", "retain-modified-dates"]')

    def test_a_worker_hears_of_what_was_accepted_elsewhere(self, machine: Machine, other: Machine) -> None:
        settings = machine.settings(SHIFTED)
        sink = sink_of("share", settings.destinations["share"])
        door = door_of("share", sink, cleans_of("share", sink, settings), settings)
        with connect(machine.dsn) as connection:
            door.check(connection)
            other.accept(FULL)
            with pytest.raises(Misconfigured):
                door.check(connection)

    def test_one_that_lets_out_more_is_told_so_though_another_was_first_meanwhile(self, machine: Machine, other: Machine) -> None:
        settings = machine.settings(FULL)
        other.begin(SHIFTED)

        with connect(machine.dsn) as connection, pytest.raises(Misconfigured, match="More would leave for share"):
            Door(lets_out("share", settings), "share")._put_down(connection, "share")  # as if it had found nothing


class TestGroups:
    def test_nothing_goes_to_a_member_that_lost_its_policy(self, machine: Machine) -> None:
        machine.begin(SHIFTED)
        settings = grouped(machine.settings(None))

        with pytest.raises(Misconfigured, match="the policy mine is taken off"):
            let_out(settings, "all")

    def test_lets_out_more_than_its_member_does_once_that_is_accepted_for_the_group(self, machine: Machine) -> None:
        machine.begin(SHIFTED, patients="consent")
        settings = with_group(machine, patients="consent")

        with pytest.raises(Misconfigured, match=r"for its member share\).* hilum deid policies accept all --why"):
            let_out(settings, "all")
        accept_group(settings)
        let_out(settings, "all")

    def test_lets_out_by_another_policy_than_its_member_had_once_that_is_accepted_for_the_group(self, machine: Machine) -> None:
        machine.begin(SHIFTED)
        bare = machine.settings(FULL)
        bare.destinations["share"].pop("policy")
        settings = grouped(bare, policy="mine")
        with pytest.raises(Misconfigured, match="full dates"):
            let_out(settings, "all")

        accept_group(settings)
        let_out(settings, "all")
        with pytest.raises(Misconfigured, match="is taken off"):
            let_out(settings)

    def test_lets_nothing_more_out_for_a_member_that_asks_for_more_since_it_was_accepted(self, machine: Machine) -> None:
        machine.begin(SHIFTED)
        accept_group(with_group(machine))
        machine.begin(SHIFTED, patients="consent")

        with pytest.raises(Misconfigured, match="who did not consent"):
            let_out(with_group(machine, patients="consent"), "all")

    def test_is_asked_about_a_member_that_joins_it_after_it_was_accepted(self, machine: Machine) -> None:
        machine.begin(SHIFTED, patients="consent")
        settings = with_group(machine, patients="consent")
        accept(machine.dsn, [("all", lets_out("all", settings))], members={"all": ["another"]}, by="me", why="letter")

        with pytest.raises(Misconfigured, match="who did not consent"):
            let_out(settings, "all")

    def test_that_was_published_is_accepted_by_publishing_it(self, machine: Machine) -> None:
        machine.begin(SHIFTED)
        settings = grouped(machine.settings(None))
        own = {name: getattr(settings, name) for name in Settings.__struct_fields__}
        published = InForce(**own, version="1", applied=frozenset({"all"}))

        with pytest.raises(Misconfigured, match="hilum apply --yes"):
            let_out(published, "all")
        accept_group(published)
        let_out(published, "all")


def test_what_was_published_is_asked_about_there_alone(machine: Machine) -> None:
    machine.begin(SHIFTED)
    own = {name: getattr(bare := machine.settings(None), name) for name in Settings.__struct_fields__}

    let_out(InForce(**own, version="1", applied=frozenset(bare.destinations)))


def test_a_worker_takes_nothing_up_while_more_would_leave(machine: Machine) -> None:
    store, deid = MemoryStore(), machine.settings(None).deid
    enter(machine.dsn, stored(store))
    with working(machine.dsn, store, Scripted(answer=lambda *_: DELIVERED, policy="research"), name="study", deid=deid):
        eventually(lambda: rows(machine.dsn)["1.2.3.6"]["state"] == "delivered")

    enter(machine.dsn, replace(stored(store, SOPInstanceUID="1.2.3.7"), delivery_id="second"))
    settings, sink = replace(machine.settings(None), destinations={}), Scripted(answer=lambda *_: DELIVERED)
    queue = Queue(machine.dsn, "study", str(uuid.uuid4()), bus.Writer(Settings(), "deliver"))
    shared = Shared("study", sink)
    shared.failing.began("study", "before")
    with pytest.raises(Misconfigured, match="the policy research is taken off"):
        Worker(shared, queue, store, settings, threading.Event()).run(threading.Event())

    assert not sink.seen
    assert rows(machine.dsn)["1.2.3.7"]["claimed_by"] is None
    assert shared.failing.says == "before"  # it is not said to be back meanwhile


def test_a_paused_destination_is_no_longer_said_to_be_unable_once_it_is_able(machine: Machine) -> None:
    store = MemoryStore()
    enter(machine.dsn, stored(store))
    sink = Scripted(answer=lambda *_: DELIVERED)
    queue = Queue(machine.dsn, "study", str(uuid.uuid4()), bus.Writer(Settings(), "deliver"))
    shared, stop = Shared("study", sink, Orders(paused=True)), threading.Event()
    shared.failing.began("study", "There is no key.")
    thread = threading.Thread(target=Worker(shared, queue, store, machine.settings(None), threading.Event()).run, args=(stop,))
    thread.start()
    try:
        eventually(lambda: not shared.failing.says)
        assert shared.says() == "paused"
        assert not sink.seen
    finally:
        stop.set()
        thread.join(60)


@pytest.fixture
def hilum(log: Log, machine: Machine) -> Callable[..., Result]:
    log.make()
    kafka = {f"HILUM_KAFKA__{name.upper()}": str(getattr(log.settings.kafka, name)) for name in log.settings.kafka.__struct_fields__}
    environment = kafka | {"HILUM_POSTGRES__DSN": machine.dsn, "HILUM_S3__ENDPOINT": "http://none:1"}

    def run(*words: str, policy: str | None, more: str = "") -> Result:
        settings = machine.settings(policy)
        table = settings.destinations["share"]
        config = Path(settings.deid.policies).parent / "own.toml"
        lines = [f'{name} = "{value}"' for name, value in table.items()]
        deid = f'[deid]\nkey_path = "{settings.deid.key_path}"\npolicies = "{settings.deid.policies}"\n'
        config.write_text("\n".join(["[destinations.share]", *lines, more, deid, '[roles]\nprocesses = ["index"]\n']))
        return CliRunner().invoke(app, words, env=environment | {"HILUM_CONFIG": str(config)})

    return run


def test_the_command_says_what_would_leave_and_asks_for_a_reason(hilum: Callable[..., Result], machine: Machine) -> None:
    words = ["deid", "policies", "accept"]
    machine.begin(SHIFTED)

    assert "All lets out what was accepted." in hilum(*words, policy=SHIFTED).output
    said = hilum(*words, policy=FULL)
    assert "The policy mine: full dates will leave (were shifted)." in said.output
    assert "--yes has that hold." in said.output
    assert isinstance(hilum(*words, "--yes", policy=FULL).exception, Misconfigured)
    assert isinstance(hilum(*words, "nobody", policy=FULL).exception, NotFound)
    with pytest.raises(Misconfigured):
        machine.begin(FULL)
    done = json.loads(hilum(*words, "share", "--yes", "--why", "letter", "--json", policy=FULL).stdout)
    assert (done["accepted"], done["differs"][0]["destination"]) == (["share"], "share")
    machine.begin(FULL)
    assert [each["why"] for each in json.loads(hilum("deid", "policies", "accepted", "--json", policy=FULL).stdout)] == ["", "letter"]
    assert "letter" in hilum("deid", "policies", "accepted", "share", policy=FULL).output


def test_the_command_accepts_for_a_group_what_its_members_get_by_way_of_it(hilum: Callable[..., Result], machine: Machine) -> None:
    words, group = ["deid", "policies", "accept", "all"], '[destinations.all]\ntype = "group"\nmembers = ["share"]\n'
    machine.begin(SHIFTED)

    assert "with names; what waits under it is put aside (for its member share)." in hilum(*words, policy=None, more=group).output
    assert hilum(*words, "--yes", "--why", "letter", policy=None, more=group).exit_code == 0
    assert "All lets out what was accepted." in hilum(*words, policy=None, more=group).output
    let_out(grouped(machine.settings(None)), "all")


def test_apply_asks_about_what_files_of_this_machine_let_out_meanwhile(
    hilum: Callable[..., Result], machine: Machine, tmp_path: Path
) -> None:
    machine.begin(SHIFTED)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "destinations.toml").write_text('[destinations.share]\ntype = "folder"\npath = "/srv/share"\n')
    words = ["apply", "-f", str(tmp_path / "config"), "--timeout", "0"]

    assert "the policy mine is taken off" in str(hilum(*words, policy=None).exception)  # though the settings file had it off before
    assert hilum(*words, "--yes", policy=None).exit_code == 0
    assert listed(machine.dsn)[-1].said == LetsOut()
