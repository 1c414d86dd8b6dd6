"""What can be said of an object and to its sender: reasons, findings, statuses, refusals."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

from hilum.errors import Reason

from .markdown import code, table


def reasons_page() -> str:
    """Every reason for which something waits in quarantine."""
    return "\n".join(
        [
            "# Reasons",
            "",
            "Why an instance waits in quarantine (`hilum quarantine list`), and what to do about it.",
            "",
            table(("Reason", "Meaning", "What to do"), [(code(reason), reason.meaning, reason.fix) for reason in Reason]),
        ]
    )


def findings_page() -> str:
    """Every finding that validation and routing note."""
    found = importlib.import_module("processors.validate").FINDINGS
    of_study = importlib.import_module("processors.route.fitting").FINDINGS
    return "\n".join(
        [
            "# Findings",
            "",
            "What validation notes about an object that it lets through. `refuse` in a sender's settings names the findings that send that",
            "sender's objects to quarantine instead, with the reason `finding-refused`.",
            "",
            table(("Finding", "Meaning"), [(code(name), meaning) for name, meaning in found.items()]),
            "",
            "## Of studies",
            "",
            "What routing notes when it holds an object against its study; `[studies]` of the settings says what to quarantine instead.",
            "",
            table(("Finding", "Meaning"), [(code(name), meaning) for name, meaning in of_study.items()]),
        ]
    )


def statuses_page() -> str:
    """Every status, rejection and refusal that a sender can get."""
    answers = importlib.import_module("ingest.dicom.answers")
    worklist = importlib.import_module("ingest.dicom.worklist_answers")
    stow = importlib.import_module("ingest.stow.answers")
    negotiation = importlib.import_module("ingest.dicom.negotiation")
    rejections = [value for value in vars(negotiation).values() if isinstance(value, negotiation.Rejection)]
    aborts = importlib.import_module("ingest.dicom.aborts")
    strangers = importlib.import_module("ingest.dicom.strangers")
    endings = importlib.import_module("ingest.dicom.endings")
    results = {1: "permanent", 2: "transient"}
    reasons = {1: "unrecognized PDU", 2: "unexpected PDU", 6: "invalid PDU parameter value"}
    return "\n".join(
        [
            "# DICOM statuses",
            "",
            "What a sender is answered, and what became of the object. **Success means durable**: the object is on stable storage",
            "before the answer is sent. What is merely odd is a [finding](findings.md) and gets Success; what a person must look at",
            "waits in [quarantine](reasons.md), and is kept whatever the status says.",
            "",
            "## C-STORE (PS3.4 B.2.3)",
            "",
            _answers(answers.ANSWERS),
            "",
            "## Storage commitment, N-ACTION (PS3.4 J.3.2)",
            "",
            _answers(answers.COMMITMENT_ANSWERS),
            "",
            "## Reports of destinations that were asked for storage commitment, N-EVENT-REPORT (PS3.4 J.3.3)",
            "",
            _answers(answers.REPORT_ANSWERS),
            "",
            "## Modality worklist, C-FIND (PS3.4 K.4.1)",
            "",
            _answers(worklist.WORKLIST_ANSWERS),
            "",
            "## Performed procedure steps, N-CREATE and N-SET (PS3.4 F.7.2)",
            "",
            _answers(worklist.PERFORMED_ANSWERS),
            "",
            "## Associations that are rejected (PS3.8 Table 9-21)",
            "",
            table(
                ("Result", "Source", "Reason", "When"),
                [(f"{each.result} ({results[each.result]})", str(each.source), str(each.reason), each.says) for each in rejections],
            ),
            "",
            "## Associations that are aborted (PS3.8 9.3.8)",
            "",
            "Of the object under way nothing is kept; what had got its status before stays.",
            "",
            table(
                ("Source", "Reason (Table 9-26)", "When"),
                [
                    *(("0 (user)", "0", f"Before the association is established: {each.when}") for each in aborts.ABORTS_BEFORE),
                    *(("2 (provider)", f"{each.reason} ({reasons[each.reason]})", each.when) for each in aborts.ABORTS),
                ],
            ),
            "",
            "Before the association is established the standard has the abort come from the service user, who gives no reason",
            "(PS3.8 Tables 9-9 and 9-10: AA-1 in state 2).",
            "",
            "## What else ends a connection",
            "",
            _endings(endings.ENDINGS),
            "",
            "Who sent no request that could be read, or called itself by no AE title, is recorded like any other association, and told",
            f"of in the log, but at most {strangers.MOST_OF_PEER} times a minute for each address and {strangers.MOST_OF_ALL} for all, by",
            "each process; `hilum_attempts_not_recorded_total` counts the rest. A connection on which not a word is said leaves no record.",
            "",
            "## What is odd and taken",
            "",
            "Hilum is stricter than it need be nowhere.",
            "",
            _endings(endings.TAKEN),
            "",
            "## STOW-RS, instance by instance (PS3.18 I.2)",
            "",
            "In the answer's WarningReason or FailureReason; the comment is in ErrorComment beside it. The HTTP status is 200 if all are",
            "stored, 202 if some have a warning or a failure, 409 if none is stored.",
            "",
            table(
                ("Reason", "Comment", "When", "What it means"),
                [(code(f"0x{answer.status:04X}"), answer.comment, answer.when, answer.means) for answer in stow.ANSWERS],
            ),
            "",
            "## STOW-RS requests of which nothing is kept",
            "",
            "The body is a problem document (RFC 9457) with `title`, `detail`, `reason` and `fix`. 503 comes with Retry-After.",
            "",
            table(
                ("HTTP", "`reason`", "When", "What to do"),
                [(str(each.status), code(each.reason), each.when, each.fix) for each in stow.REFUSALS],
            ),
        ]
    )


def _endings(endings: Iterable[Any]) -> str:
    return table(("When", "What is sent", "What it means"), [(each.when, each.sent, each.means) for each in endings])


def _answers(answers: Iterable[Any]) -> str:
    return table(
        ("Status", "Error Comment", "When", "What it means"),
        [(code(f"0x{answer.status:04X}"), answer.comment, answer.when, answer.means) for answer in answers],
    )
