"""What people ask of Hilum on Kafka, what became of it, and the configurations that are in force. `hilum.events` has all events."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from msgspec import Meta, Struct

from hilum.event import Event, Topic


class StudyCommand(Event, frozen=True, kw_only=True):
    """A person asks that something be done with a study. The stage that does it answers with a `CommandOutcome`."""

    topic = Topic(name="control.command.v1", phi="limited")

    id: str
    #: `complete`: it is complete as it is. `look`: whether it is complete is to be found out now, for a rule was corrected.
    action: Annotated[str, Meta(pattern="^[a-z-]+$")]
    study_instance_uid: str
    #: The account that asks.
    actor: str = ""
    #: Why, as that person said. Not for names of patients.
    why: str = ""
    #: The last complete revision as that person saw it; if it is another one by now, nothing is done. -1: whatever it is.
    expected_revision: int = -1
    asked_at: datetime

    @property
    def key(self) -> str:
        """See `Event.key`."""
        return self.study_instance_uid

    @property
    def subject(self) -> str:
        """See `Event.subject`."""
        return self.id


class CommandOutcome(Event, frozen=True, kw_only=True):
    """What became of a command."""

    topic = Topic(name="control.outcome.v1", phi="limited")

    command: str
    stage: str
    study_instance_uid: str
    done: bool
    #: What was done, or why nothing was.
    sentence: str
    answered_at: datetime

    @property
    def key(self) -> str:
        """See `Event.key`."""
        return self.study_instance_uid

    @property
    def subject(self) -> str:
        """See `Event.subject`."""
        return self.command


class ConfigApplied(Event, frozen=True, kw_only=True):
    """A whole configuration of destinations and rules is in force from here on, until the next one."""

    topic = Topic(name="control.config.v1", phi="limited", partitions=1, retention_ms=-1)

    #: Twelve hexadecimal digits of the digest of destinations, rules and policies: equal ones have the same version.
    version: str
    #: Destinations by name, and rules in their order, each as in the settings file; secrets are named by files, never held.
    destinations: dict[str, dict[str, Any]]
    rules: tuple[dict[str, Any], ...]
    #: The policies of de-identification that destinations name, by name: `version`, and `policy` as it is read.
    policies: dict[str, dict[str, Any]] = {}  # noqa: RUF012  # msgspec copies an empty one
    #: The account that applied it, and why.
    actor: str = ""
    why: str = ""
    applied_at: datetime

    @property
    def key(self) -> str:
        """See `Event.key`. There is one partition, so that all are in order."""
        return self.version

    @property
    def subject(self) -> str:
        """See `Event.subject`."""
        return self.version


class Limits(Struct, frozen=True, kw_only=True):
    """What a person lets a destination have at most, in place of what its settings say; None: as these say."""

    objects_per_s: float | None = None
    megabytes_per_s: float | None = None
    max_associations: int | None = None
    #: As in the settings of a destination.
    hours: str | None = None


class ResourceWanted(Event, frozen=True, kw_only=True):
    """What people want of one destination or study, whole: the last one on the topic holds; an empty message ends it."""

    topic = Topic(name="control.state.v1", phi="limited", partitions=1, cleanup="compact")

    #: `destination/NAME` or `study/STUDYINSTANCEUID`.
    resource: str
    #: Of a destination: nothing is delivered to it, and its queue waits.
    paused: bool = False
    #: Of a study: nothing of it is delivered anywhere.
    held: bool = False
    #: Of a destination.
    limits: Limits | None = None
    #: Of a destination that is in no settings: its table, as these would have it.
    table: dict[str, Any] | None = None
    why: str = ""
    #: Who said so: the account on the machine where it was said.
    by: str
    since: datetime

    @property
    def key(self) -> str:
        """See `Event.key`."""
        return self.resource

    @property
    def subject(self) -> str:
        """See `Event.subject`."""
        return self.resource
