"""Publish a configuration, and wait until every worker runs it."""

from __future__ import annotations

import getpass
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

from confluent_kafka import KafkaError, KafkaException, Message
from msgspec import Struct

from hilum import bus, commands
from hilum.bundle import ROLES, UNREADABLE, Bundle, Worker, current, workers
from hilum.candidate import Candidate, effective, of_bundle
from hilum.database.found import rows
from hilum.database.troubles import stuck_studies, studies_with_failed_rules
from hilum.errors import Misconfigured, Refused, TryAgain
from hilum.events import ConfigApplied, StudyCommand, following_id
from hilum.settings import Settings

#: How long Kafka may take to acknowledge what is published.
PUBLISHED_WITHIN_S = 20.0


class Orphans(Struct, frozen=True, kw_only=True):
    """Deliveries that wait for a destination that is to go."""

    destination: str
    pending: int


def orphans(settings: Settings, before: Settings, after: Settings) -> list[Orphans]:
    """What would wait for a destination of `before` that `after` does not have. Raises `TryAgain` while PostgreSQL is away."""
    gone = sorted(before.destinations.keys() - after.destinations.keys())
    if not gone:
        return []
    statement = """
        SELECT destination, count(*) AS pending FROM delivery
        WHERE state IN ('pending', 'parked') AND destination = ANY(%(gone)s) GROUP BY destination ORDER BY destination
    """
    return rows(settings.postgres.dsn, Orphans, statement, {"gone": gone})


def refuse_orphans(found: list[Orphans]) -> None:
    """Raise `Refused` that counts what would be left behind, if anything would."""
    if found:
        counts = ", ".join(f"{each.pending} for {each.destination}" for each in found)
        raise Refused(
            f"{sum(each.pending for each in found)} deliveries wait for destinations that this configuration does not have: {counts}.",
            fix="Let them drain or cancel them first (`hilum dest list`), keep the destination without rules, or add --confirm.",
        )


def publish(settings: Settings, candidate: Candidate, *, why: str = "", actor: str = "") -> Bundle:
    """Put `candidate` on the topic; what is in force when it is there.

    The candidate must have been checked. Raises `TryAgain` if Kafka does not acknowledge it (it may be in force all the same: the
    same again changes nothing), `Misconfigured` if it is too large or Kafka refuses it.
    """
    before = current(settings)
    event = ConfigApplied(
        version=candidate.version,
        destinations=candidate.destinations,
        rules=candidate.rules,
        policies=candidate.policies,
        actor=actor or account(),
        why=why,
        applied_at=datetime.now(UTC),
    )
    place = str(before.offset + 1 if before else 0)
    record = bus.Writer(settings, "config").record(event, following_id(candidate.version, "config", int(place)))
    if len(record.value) > bus.MAX_EVENT_BYTES:
        raise Misconfigured(
            "config-too-large",
            f"The configuration has {len(record.value):,} bytes; {bus.MAX_EVENT_BYTES:,} are the most.",
            fix="Give its rules fewer or shorter tests.",
        )
    offset = _said(settings, record)
    return Bundle(applied=event, offset=offset)


def _said(settings: Settings, record: bus.Record) -> int:
    producer = bus.producer(settings)
    outcome: list[int | KafkaError] = []

    def done(error: KafkaError | None, message: Message) -> None:
        outcome.append(error if error is not None else message.offset() or 0)

    try:
        producer.produce(record.topic, record.value, record.key, 0, headers=record.headers, on_delivery=done)
        producer.flush(PUBLISHED_WITHIN_S)
    except KafkaException as error:
        raise bus.away(error) from None
    if not outcome:
        raise TryAgain("Kafka has not acknowledged the configuration in time.", fix="See `hilum config history` whether it is there.")
    found = outcome[0]
    if isinstance(found, int):
        return found
    if found.retriable() or found.code() < 0:
        raise bus.away(KafkaException(found))
    raise Misconfigured("config-denied", f"Kafka refuses the configuration ({found.name()}).", fix="Check this account's rights.")


def account() -> str:
    """The account that runs this command."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user id may have no name
        return "unknown"


class Waited(Struct, frozen=True, kw_only=True):
    """Which workers run the version that was waited for, and which do not."""

    version: str
    running: list[Worker]
    #: Those that run another one, and those that do not answer.
    stragglers: list[Worker]
    #: Roles that must exist and of which no worker was heard.
    absent: list[str] = []

    @property
    def done(self) -> bool:
        """Whether every worker that there must be runs the version."""
        return not self.stragglers and not self.absent


def wait(settings: Settings, version: str, timeout_s: float, *, now: Callable[[], float] = time.monotonic, pause_s: float = 0.2) -> Waited:
    """Wait until every worker runs `version`, or says that it cannot, for at most `timeout_s`.

    There must be one of each role of `settings` that uses rules or destinations. One that says nothing any more is waited for: it
    may be stuck, and go on with what it had. Raises `TryAgain` while PostgreSQL, where they say it, is away.
    """
    deadline = now() + timeout_s
    needed = [role for role in ROLES if role in settings.role_names]
    while True:
        found = [each for each in workers(settings.postgres.dsn) if not each.gone]
        running = [each for each in found if each.version == version and not each.silent]
        late = [each for each in found if each not in running]
        absent = [role for role in needed if not any(each.role == role for each in found)]
        refused = bool(late) and all(each.refuses in (version, UNREADABLE) and not each.silent for each in late)
        if now() > deadline or (not absent and (not late or refused)):
            return Waited(version=version, running=running, stragglers=late, absent=absent)
        time.sleep(pause_s)  # workers take a version between two batches, and tell PostgreSQL


def look_again(settings: Settings, version: str) -> int:
    """Have the studies looked at on which, or on objects of which, a rule could not be evaluated, now that `version` holds; how many.

    What comes of it is not waited for, and that nobody can be told is no failure: route looks at them by itself every ten minutes.
    """
    try:
        waiting = [each.study_instance_uid for each in stuck_studies(settings.postgres.dsn)]
        stuck = list(dict.fromkeys([*waiting, *studies_with_failed_rules(settings.postgres.dsn, version)]))
        if stuck:
            _say_look(settings, stuck)
    except TryAgain:
        return 0
    return len(stuck)


def _say_look(settings: Settings, stuck: list[str]) -> None:
    now = datetime.now(UTC)
    commands.say(
        settings,
        [
            StudyCommand(id=str(uuid.uuid4()), action="look", study_instance_uid=uid, actor=account(), why="apply", asked_at=now)
            for uid in stuck
        ],
    )


def overtaken(settings: Settings, bundle: Bundle) -> str:
    """The version that somebody else has published since; empty if nobody has."""
    last = current(settings)
    return last.version if last is not None and last.offset > bundle.offset and last.version != bundle.version else ""


def in_force_now(settings: Settings) -> tuple[Bundle | None, Candidate]:
    """What was published last, and all that holds now: with that, or without any by the settings alone."""
    bundle = current(settings)
    return bundle, effective(settings, of_bundle(bundle) if bundle else None)
