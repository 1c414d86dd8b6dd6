"""What HL7 senders are answered, and what becomes of what they get wrong."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

from .markdown import code, table


def page() -> str:
    """The table of acknowledgements, from the examples that the tests send; reasons, findings and condition codes."""
    examples = importlib.import_module("ingest.hl7.examples").EXAMPLES
    refusals = importlib.import_module("ingest.hl7.refusals").REFUSALS.values()
    findings = importlib.import_module("ingest.hl7.intake").FINDINGS
    wrong = importlib.import_module("tests.wrong_orders").WRONG_ORDERS  # this runs in a checkout only
    rows = []
    reasons = [
        (code(each.reason), code(each.answer) if each.answer else "none", each.condition, each.sentence, each.fix) for each in refusals
    ]
    for example in examples:
        answers = " ".join(map(code, example.answers)) or "none"
        said = f"{example.condition} {example.place}".strip()
        kept = ", ".join(code(each) if each != "received" else "received" for each in example.kept)
        found = " ".join(map(code, example.findings))
        rows.append((example.title, answers, said, kept, found, example.outcome))
    return "\n".join(
        [
            "# HL7 acknowledgements",
            "",
            "**`AA` and `CA` mean durable**: the message survives a power cut before it is acknowledged, with Kafka up or down. `AR` and",
            "`CR` say that the content is not to blame, and senders try again; `AE` and `CE` that it is. See [HL7](../operations/hl7.md).",
            "",
            "## What senders get wrong",
            "",
            "Each row is sent to a listener by `tests/ingest/hl7/test_hl7_bad_input.py`. Condition codes are those of table 0357 in ERR-3",
            "(before version 2.5: ERR-1), with the place in ERR-2.",
            "",
            table(("What", "Answer", "Condition", "Kept as", "Findings", "What becomes of it"), rows),
            "",
            "## What orders and patients get wrong",
            "",
            "The messages of each row are sent to a listener by `tests/processors/match/test_wrong_orders.py`, with images of one study.",
            "That they came is not in doubt, so each is acknowledged; what is wrong shows in what the commands say. For codes see",
            "[orders](../operations/orders.md).",
            "",
            table(
                ("What", "Answers", "`hilum order show`", "`hilum patient show`", "`hilum study match`", "What becomes of it"),
                map(_wrong, wrong),
            ),
            "",
            "## Reasons",
            "",
            "Why something is not taken: `hilum hl7 list --refused`, but for want of disk, which `hilum_hl7_refused` counts alone.",
            "",
            table(("Reason", "Answer", "Condition", "Meaning", "What to do"), reasons),
            "",
            "## Findings",
            "",
            "What is odd about a message that is taken; validation against the grammar finds more, after the acknowledgement.",
            "",
            table(("Finding", "Meaning"), [(code(name), meaning) for name, meaning in findings.items()]),
        ]
    )


def _wrong(example: Any) -> tuple[str, ...]:
    orders = "; ".join(f"{placer}: {_said(facts)}" for placer, facts in example.orders.items())
    patients = "; ".join(f"{identifier}: noted {code(noted)}" for identifier, noted in example.patients.items())
    return example.title, " ".join(map(code, example.answers)), orders, patients, _said(example.study), example.outcome


def _said(facts: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{label.lower()} {code(value)}" for label, value in facts)
