"""Why a file is not taken."""

from __future__ import annotations

from enum import StrEnum

from hilum.errors import HilumError


class Why(StrEnum):
    """What is wrong with a file, or what else it is. The value is the code that logs and `--json` show."""

    NO_DICOM = "no-dicom"
    DICOMDIR = "dicomdir"
    NESTED_ARCHIVE = "nested-archive"
    LINK = "link"
    EMPTY = "empty"
    READ_ERROR = "read-error"
    CHANGED = "changed"
    TRUNCATED = "truncated"
    UNREADABLE = "unreadable"
    IDENTIFIER_MISSING = "identifier-missing"
    TOO_LARGE = "too-large"
    ARCHIVE = "archive"

    @property
    def meaning(self) -> str:
        """One sentence for people."""
        return _MEANING[self]


_MEANING = {
    Why.NO_DICOM: "It is no DICOM file.",
    Why.DICOMDIR: "It is the directory of a medium: it is read, and holds no object.",
    Why.NESTED_ARCHIVE: "It is an archive within an archive, which is not opened: unpack the outer one first.",
    Why.LINK: "It is a symbolic link or a special file; these are not followed.",
    Why.EMPTY: "The file is empty.",
    Why.READ_ERROR: "The file cannot be read.",
    Why.CHANGED: "The file changed while it was read.",
    Why.TRUNCATED: "The data set ends before an element that it announces is complete.",
    Why.UNREADABLE: "It is a DICOM file that cannot be parsed (PS3.10 7, PS3.5 7).",
    Why.IDENTIFIER_MISSING: "A UID is missing without which no object can be kept.",
    Why.TOO_LARGE: "It is larger than `dicom.max_object_bytes`.",
    Why.ARCHIVE: "The archive is damaged, encrypted, or larger inside than is allowed.",
}


class Skipped(HilumError):
    """Nothing is wrong with the file: there is no object in it to be taken."""

    def __init__(self, why: Why) -> None:
        super().__init__(why.meaning)
        self.why = why


class Unreadable(HilumError):
    """The file is an object, or should be one, and cannot be taken. The sentence holds no value of it."""

    def __init__(self, why: Why, sentence: str = "", *, fix: str = "") -> None:
        super().__init__(sentence or why.meaning, fix=fix)
        self.why = why
