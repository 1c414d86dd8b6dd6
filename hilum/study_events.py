"""What Hilum says on Kafka of studies as a whole, of originals that are no longer kept, and of what is in a bucket for research.

`hilum.events` has all events.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from hilum.event import Event, Topic


class StudyChanged(Event, frozen=True, kw_only=True):
    """Something happened to a study as a whole. Counts are those after the change."""

    topic = Topic(name="imaging.study.changed.v1", phi="limited")

    study_instance_uid: str
    #: `opened`, `completed`, `reopened` (something new came after it was complete), `withdrawn`: a rejection note names instances; or
    #: `stuck`: its time has come, and a rule could not be evaluated on it.
    change: Annotated[str, Meta(pattern="^[a-z-]+$")]
    #: The revision that is open, or complete now: 1 is the first.
    revision: int
    #: Why it is complete: `idle`, `expected`, `by-hand` or `maximum`. What reopened it: `images` or `objects` (such as reports). Why it
    #: is stuck: `rule-failed`.
    reason: str = ""
    #: The same in a sentence, if it is stuck: which rule, and what would help. Holds no value of an object.
    says: str = ""
    #: Instances that came, without those that were withdrawn; and how many of them are new in this revision.
    instances: int
    new: int = 0
    series: int = 0
    modalities: tuple[str, ...] = ()
    #: Instances that somebody announced and that have not come.
    missing: int = 0
    #: Instances that rejection notes name.
    withdrawn: int = 0
    #: The instances that this rejection note names: its SOPInstanceUID, and the code of its title (PS3.16 CID 7011).
    note: str = ""
    code: str = ""
    sop_instance_uids: tuple[str, ...] = ()
    #: Who asked for it, by hand.
    actor: str = ""
    config_version: str = ""
    changed_at: datetime

    @property
    def key(self) -> str:
        """See `Event.key`."""
        return self.study_instance_uid

    @property
    def subject(self) -> str:
        """See `Event.subject`."""
        return self.study_instance_uid


class StudyExpected(Event, frozen=True, kw_only=True):
    """Somebody who knows says which instances a study has: it is complete when they are here, and not before."""

    topic = Topic(name="imaging.study.expected.v1", phi="limited")

    study_instance_uid: str
    #: Who says so: `storage-commitment`, `manifest`, `mpps` or `query`.
    source: Annotated[str, Meta(pattern="^[a-z-]+$")]
    sop_instance_uids: tuple[str, ...]
    #: How many the study has, where only their number is known; 0: it is not.
    instances: Annotated[int, Meta(ge=0)] = 0
    said_at: datetime

    @property
    def key(self) -> str:
        """See `Event.key`."""
        return self.study_instance_uid

    @property
    def subject(self) -> str:
        """See `Event.subject`."""
        return self.study_instance_uid


class InstanceExpired(Event, frozen=True, kw_only=True):
    """An original is no longer kept: its deliveries were settled, and its retention has passed. What is known of it stays."""

    topic = Topic(name="imaging.instance.expired.v1", phi="limited")

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    #: Where it was, and what: see `ObjectRef`.
    bucket: str
    object_key: str
    size_bytes: int
    sha256: str
    #: The term by which it expired, such as `originals_days = 30`, and the version of all terms.
    policy: str
    policy_version: str
    #: The process that decided it.
    by: str
    decided_at: datetime
    expired_at: datetime

    @property
    def key(self) -> str:
        """See `Event.key`."""
        return self.study_instance_uid

    @property
    def subject(self) -> str:
        """See `Event.subject`."""
        return self.sop_instance_uid


class InstanceDeidentified(Event, frozen=True, kw_only=True):
    """A de-identified object is in a bucket for research. The last word on each object stays; an empty message says that it is withdrawn.

    Nothing in it leads back to the original.
    """

    topic = Topic(name="research.instance.deidentified.v1", phi="limited", cleanup="compact")

    #: The bucket and the new SOP instance UID, with a slash between: what an empty message names that withdraws it.
    resource: str
    #: Whose pseudonyms it has, by which policy and key.
    project: str
    policy: str
    policy_version: str
    key_id: str
    #: The new UIDs.
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    #: Where it is, and the SHA-256 of the whole file there, in hexadecimal.
    bucket: str
    object_key: str
    size_bytes: int
    sha256: str
    at: datetime

    @property
    def key(self) -> str:
        """See `Event.key`: one object's words are in order, and the last one stays."""
        return self.resource

    @property
    def subject(self) -> str:
        """See `Event.subject`."""
        return self.sop_instance_uid


class PatientLinked(Event, frozen=True, kw_only=True):
    """Two pseudonyms of a project are one patient since a merge, or no longer. The last word on each two stays.

    What left under the first stays as it is; what comes of the patient leaves under the second. Nothing in it leads back to the patient.
    """

    topic = Topic(name="research.patient.linked.v1", phi="limited", cleanup="compact")

    #: Project, key and both pseudonyms, with slashes between.
    resource: str
    #: Whose pseudonyms they are, and under which key.
    project: str
    key_id: str
    prior: str
    surviving: str
    #: `ended`: the merge was taken back, and they are two patients.
    state: Literal["linked", "ended"]
    at: datetime

    @property
    def key(self) -> str:
        """See `Event.key`: one link's words are in order, and the last one stays."""
        return self.resource

    @property
    def subject(self) -> str:
        """See `Event.subject`."""
        return self.prior
