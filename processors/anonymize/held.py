"""What is not de-identified, and why: no object leaves instead of one that might tell whose it is."""

from __future__ import annotations

from enum import StrEnum

from hilum.errors import HilumError

#: What to do about an object that nobody but its source can put right; and where it may be that it never can.
AT_ITS_SOURCE = "Correct the object at its source and send it again."
OR_LEAVE_OUT = "Correct the object at its source, or leave such objects out of what goes to this destination."


class HeldReason(StrEnum):
    """Why no object was made. The value is the code that events, rows and commands show."""

    UNREADABLE = "unreadable"
    TRUNCATED = "truncated"
    NESTING = "nesting"
    PRIVATE_SOP_CLASS = "private-sop-class"
    DOCUMENT = "encapsulated-document"
    VR_UNEXPECTED = "vr-unexpected"
    PRIVATE_CREATOR = "private-creator"
    CHARACTER_SET = "character-set"
    UID_INVALID = "uid-invalid"
    DATE_INVALID = "date-invalid"
    VALUE_MALFORMED = "value-malformed"
    OVERLAY = "overlay-in-pixels"
    POLICY = "policy"
    RISKY = "risky-kind"
    NO_MASK = "no-mask"
    MASK = "mask-does-not-fit"
    PIXELS = "pixels-unreadable"
    DEFACE = "not-defaced"
    TEXT = "text-in-pixels"

    @property
    def meaning(self) -> str:
        """One sentence for the reference page."""
        return _MEANING[self]


_MEANING: dict[HeldReason, str] = {
    HeldReason.UNREADABLE: "The file cannot be read as DICOM, or contradicts itself (PS3.5 7, PS3.10 7.1).",
    HeldReason.TRUNCATED: "The data set ends before an element that it announces is complete.",
    HeldReason.NESTING: "Sequences are nested deeper than any object of the standard.",
    HeldReason.PRIVATE_SOP_CLASS: "The SOP class is private, or none that is stored: nobody's table says what its attributes hold.",
    HeldReason.DOCUMENT: "An encapsulated document, in which nothing can be told from identities.",
    HeldReason.VR_UNEXPECTED: "An element that would stay says that it is of another VR than PS3.6 has it.",
    HeldReason.PRIVATE_CREATOR: "A private element that the policy keeps is not what the creator of its block makes it (PS3.5 7.8).",
    HeldReason.CHARACTER_SET: "Text is not of the character set that the object names, or it names none (PS3.3 C.12.1.1.2).",
    HeldReason.UID_INVALID: "A UID is none (PS3.5 9.1), and might be anything.",
    HeldReason.DATE_INVALID: "A date or time that the policy moves or keeps is none (PS3.5 6.2).",
    HeldReason.VALUE_MALFORMED: "A number or code that the object's class requires is none (PS3.5 6.2), and cannot be left out.",
    HeldReason.OVERLAY: "An overlay is said to be in the unused bits of the pixels, which stay as they are.",
    HeldReason.POLICY: "The policy refuses objects of its kind, or wants something gone that its class cannot be without.",
    HeldReason.RISKY: "An object of a kind that may show or tell whose it is, and the policy does not say what becomes of those.",
    HeldReason.NO_MASK: "The policy wants pixels cleaned, and none of its masks is of images like this one.",
    HeldReason.MASK: "A mask of the policy is for images like this one, and does not fit it.",
    HeldReason.PIXELS: "Pixels to be painted over cannot be decoded, or pixel data are more, fewer or others than the header says.",
    HeldReason.TEXT: "Text was found in pixels that would leave, and the policy holds such images.",
    HeldReason.DEFACE: "A head that is to be defaced was not, or not as asked.",
}


class Held(HilumError):
    """The object is not de-identified and must not leave. `place` is a path of tags; no value is in any of it."""

    def __init__(self, reason: HeldReason | str, sentence: str, *, fix: str, place: str = "") -> None:
        super().__init__(f"{place}: {sentence}" if place else sentence, fix=fix)
        self.reason = str(reason)
        self.place = place


def shown(*tags: int) -> str:
    """A path of tags as people write it: `(0040,A730)/(0040,A160)`."""
    return "/".join(f"({tag >> 16:04X},{tag & 0xFFFF:04X})" for tag in tags)
