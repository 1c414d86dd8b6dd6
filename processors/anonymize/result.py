"""What de-identification is asked with, and what it gives."""

from __future__ import annotations

from msgspec import Struct, field

from hilum.identity import Authorities
from processors.anonymize.identity import Subject
from processors.anonymize.policy import Policy
from processors.anonymize.pseudonyms import Pseudonyms


class Context(Struct, frozen=True, kw_only=True):
    """What the engine needs besides the object."""

    policy: Policy
    #: Of the policy's domain and the key in force.
    pseudonyms: Pseudonyms
    #: Whose object it is, after edits and merges; None: whoever its PatientID says, and without one a patient of its study alone.
    subject: Subject | None = None
    #: Where the object itself is asked.
    authorities: Authorities = Authorities()


class Action(Struct, frozen=True, kw_only=True):
    """What was done with one element, for a person who looks at a preview. It holds values of the object: it is shown, never logged."""

    #: As `(0040,A730)[1]/(0040,A160)`.
    path: str
    keyword: str
    vr: str
    #: As in Table E.1-1, and what it came to.
    code: str
    act: str
    why: str
    before: str
    #: None if the element is gone.
    after: str | None
    #: Whether it does not stay as it is. Long values are shown by their size alone.
    changed: bool


class Anonymized(Struct, kw_only=True):
    """A de-identified object."""

    #: The Part 10 file, to be written one after the other; what was kept are slices of the original.
    parts: list[bytes | memoryview]
    #: The new ones; `""` where the object has none.
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    #: The pseudonym of its patient, whatever the policy makes of PatientID.
    patient: str = ""
    #: What became of its pixels, in words without values; empty if they are as they were.
    stated: str = ""
    #: Only if they were asked for.
    actions: list[Action] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        """Of the file."""
        return sum(len(part) for part in self.parts)
