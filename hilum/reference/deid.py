"""Why objects, keys and policies are refused by de-identification, from the examples that the tests try."""

from __future__ import annotations

import importlib

from .markdown import code, table

_TAKEN_OFF = "[taken off](../operations/policy-changes.md#a-policy-that-is-taken-off)"
#: What holds a delivery besides the engine; see `hilum.runtime.delivery.cleans` and `processors.anonymize.delivering`.
_OF_DELIVERIES = (
    ("opted-out", "The patient, or whoever may be the same person, opted out of the project; see `hilum deid patients list`."),
    (
        "deidentified-before",
        "The object was de-identified here before, or is of a study that left so, and its destination does not ask for it.",
    ),
    ("policy-removed", f"It was entered when its destination had a policy, which was {_TAKEN_OFF} since."),
    ("opted-out-before", "The patient opted out of a former project of the policy; see `hilum deid projects list`."),
    ("no-consent", "The destination asks for consent, and there is none for this very identifier."),
    ("patient-unknown", "The patient was merged into one without identifier, or one that stands for nobody, or through such a one."),
    ("uids-differ", "The object does not have the UIDs of which its delivery tells."),
    ("syntax-differs", "De-identified, it has another transfer syntax than its delivery tells of, and the policy changes none."),
    ("second-look", "Something of the original's own identifying values is in what was made."),
    ("anonymizer-failed", "It could not be de-identified in a way that nobody foresaw."),
)


def _shown(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def page() -> str:
    """What is wrong, the reason, the sentence and the fix: as said when this page is made."""
    wrong = importlib.import_module("tests.wrong_objects")  # this runs in a checkout only
    reasons = importlib.import_module("processors.anonymize.held").HeldReason
    judged = importlib.import_module("processors.anonymize.table")
    free = importlib.import_module("processors.anonymize.vrs").FREE
    staying = [(tag, row) for tag, row in judged.beyond().items() if row.basic == "K" and judged.vr_of(tag) in {*free, "UR"}]

    def rows(examples: tuple[object, ...]) -> list[tuple[str, ...]]:
        said = [(each, wrong.said_of(each)) for each in examples]
        return [(each.title, code(found.reason), found.sentence, found.fix) for each, found in said]  # type: ignore[attr-defined]  # loaded by name

    return "\n".join(
        [
            "# De-identification: what does not leave",
            "",
            "Each row is tried by `tests/processors/anonymize/test_deid_bad_input.py`, by `hilum deid run` and as a delivery: no object is",
            "made. A delivery waits for a person (`hilum deliver list --state parked`). Places are tags; no value is ever shown. See",
            "[de-identification](../operations/deidentification.md).",
            "",
            "## Objects",
            "",
            "A date in a wrong form, a time or a UID that an object does not keep is removed like any other, and holds nothing.",
            "So is a number or a code that the class does not require; spaces around one stand for nothing.",
            "",
            table(("What", "Reason", "What is said", "What to do"), rows(wrong.WRONG_OBJECTS)),
            "",
            "## Keys and policies",
            "",
            "Nothing begins: `hilum apply`, `hilum deid run` and the destination say so. A key's file that belongs to another account than",
            "Hilum's, or root's, is refused likewise (`key-foreign`).",
            "",
            table(("What", "Reason", "What is said", "What to do"), rows(wrong.WRONG_SETUPS)),
            "",
            "## Reasons",
            "",
            "Why no object is made of an original; the [reasons](reasons.md) of deliveries are more.",
            "",
            table(
                ("Reason", "Meaning"),
                [(code(each.value), each.meaning) for each in reasons] + [(code(one), says) for one, says in _OF_DELIVERIES],
            ),
            "",
            "## Text that stays as it is",
            "",
            f"Free text that Table E.1-1 does not name and that a policy keeps unless it says otherwise: {len(staying)} attributes",
            "that devices write, or that are codes. All other free text outside the table is cleaned or removed.",
            "More: [conformance statement](../deidentification.md#what-is-not-covered).",
            "",
            table(("Attribute", "Keyword", "VR"), [(_shown(tag), row.name, judged.vr_of(tag)) for tag, row in staying]),
        ]
    )
