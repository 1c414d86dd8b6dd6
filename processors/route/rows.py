"""What the stage remembers: a row for each instance and one for each study, in one memory.

No row names a patient. A row is small: what is needed to plan an instance's deliveries is in it only while its study is open.
"""

from __future__ import annotations

from datetime import datetime
from typing import TypeAlias

from msgspec import Struct

from hilum.events import ObjectRef
from hilum.runtime.processor import Memory

from .facts import StudyRoute


class Held(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an instance waits with for its study to be complete."""

    #: The rules for studies whose `when` held for it.
    rules: tuple[str, ...] = ()
    #: Destinations that sent it: it never goes back there.
    origins: tuple[str, ...] = ()
    #: The instance of this revision that came before it: one leads to the next, so that no row holds a list of all.
    before: str = ""


class Failing(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an instance waits with for rules that can be evaluated on it."""

    #: The version of the configuration by whose rules it failed: by the same they would fail again.
    version: str
    #: The rules for studies that held for it all the same.
    took: tuple[str, ...] = ()
    #: When it is seen whether there are other rules by now; `hilum apply` has that seen at once.
    again_at: datetime


class InstanceRow(Struct, frozen=True, kw_only=True, tag_field="t", tag="i", omit_defaults=True):
    """What is known of one SOP instance. Without an `object`, it was only told of."""

    #: Receipts that were decided on other than as repeats, first decided first; the last one brought `object`, or objects equal to it.
    receipts: tuple[str, ...] = ()
    object: ObjectRef | None = None
    sop_class_uid: str = ""
    transfer_syntax_uid: str = ""
    received_at: datetime | None = None
    study: str = ""
    series: str = ""
    #: The revision of its study in which it came.
    revision: int = 0
    #: Destinations to which `object` was ever to go.
    to: tuple[str, ...] = ()
    #: Ids of deliveries by which it was sent again with its whole study.
    again: tuple[str, ...] = ()
    #: SHA-256 of other objects that are the same, encoded otherwise, or that it was before it was corrected.
    also: tuple[str, ...] = ()
    held: Held | None = None
    failing: Failing | None = None
    #: The rejection note that names it: its SOPInstanceUID.
    note: str = ""
    #: The study of that note; empty: its own. A note says nothing of an instance that comes in another study than the note is of.
    note_study: str = ""
    #: Whether it was announced and has not come.
    expected: bool = False

    def note_in(self, study_instance_uid: str) -> str:
        """The note that rejects it in this study; empty: none."""
        return self.note if (self.note_study or self.study) in ("", study_instance_uid) else ""


class SeriesRow(Struct, frozen=True, array_like=True):
    """A series of an open study: its modality, and when the last of it came, in seconds since 1970."""

    modality: str
    last_at: float


class Closing(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A study that is complete and whose decisions are being written, some at a time."""

    #: The next instance to be decided on; empty: all new ones are.
    cursor: str
    routes: tuple[StudyRoute, ...] = ()
    #: Whether those of former revisions are still to be sent again, and the last SOPInstanceUID of which that is done.
    again: bool = False
    after: str = ""
    #: How many steps were made.
    step: int = 0
    #: The version by whose rules all of it is decided, whatever is applied meanwhile.
    config_version: str = ""


class StudyRow(Struct, kw_only=True, tag_field="t", tag="s", omit_defaults=True):
    """What is known of one study. A moment is when an object came in, unless it says otherwise."""

    #: The last complete revision; 0: none.
    revision: int = 0
    #: Whether something came since.
    open: bool = False
    #: Of the open revision: when its first object came, and from whom.
    opened_at: datetime | None = None
    sender: str = ""
    last_at: datetime | None = None
    series: dict[str, SeriesRow] = {}
    #: Instances that came, those that rejection notes name included; those; and those of the open revision.
    instances: int = 0
    withdrawn: int = 0
    #: Rejection notes among them that no other note names.
    notes: int = 0
    new: int = 0
    #: Of the open revision, images: not reports and the like.
    new_images: int = 0
    #: Destinations that sent something of the open revision.
    origins: tuple[str, ...] = ()
    #: Instances that were announced and have not come; whether the study is held open for them.
    missing: int = 0
    awaited: bool = False
    #: Whether somebody who is believed to know has named all of them.
    listed: bool = False
    #: How many instances the study has, as its sender was heard to say of the open revision, and whether it is believed to know.
    counted: int = 0
    counted_all: bool = False
    #: For each rule for studies, the instances of the open revision for which its `when` held.
    matched: dict[str, int] = {}
    #: The last instance of the open revision that waits: its row names the one before.
    tail: str = ""
    closing: Closing | None = None
    #: Why it is not complete although its time has come.
    stuck: str = ""
    #: When it last changed, by the clock.
    changed_at: datetime | None = None
    #: Pseudonyms of what its objects said of order and patient, and `match` was told.
    claims: tuple[str, ...] = ()

    @property
    def lacking(self) -> int:
        """Instances that somebody announced, by name or by number, and that have not come."""
        return max(0, self.missing, self.counted - self.instances)


Row: TypeAlias = InstanceRow | StudyRow


class Rows:
    """A memory of both kinds of rows, each kind under keys of its own: there are systems that give a study and an object one UID."""

    def __init__(self, memory: Memory[Row]) -> None:
        self._memory = memory

    def instance(self, sop_instance_uid: str) -> InstanceRow | None:
        """The row of an instance."""
        row = self._memory.get(sop_instance_uid)
        return row if isinstance(row, InstanceRow) else None

    def study(self, study_instance_uid: str) -> StudyRow | None:
        """The row of a study."""
        row = self._memory.get(study_key(study_instance_uid))
        return row if isinstance(row, StudyRow) else None

    def put_instance(self, sop_instance_uid: str, row: InstanceRow, due: datetime) -> None:
        """Remember an instance; at `due` it is asked whether the index has it."""
        self._memory.put(sop_instance_uid, row, due=due if row.failing is None else min(due, row.failing.again_at))

    def put_study(self, study_instance_uid: str, row: StudyRow, due: datetime) -> None:
        """Remember a study; at `due` it is looked at again."""
        self._memory.put(study_key(study_instance_uid), row, due=due)


def study_key(study_instance_uid: str) -> str:
    """The key of a study's row; that of an instance is its UID."""
    return f"study/{study_instance_uid}"


def study_of_key(key: str) -> str:
    """The study whose row has this key; empty if it is an instance's."""
    return key.removeprefix("study/") if key.startswith("study/") else ""
