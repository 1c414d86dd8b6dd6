"""A rule's own tests: examples of objects that it must match, and that it must leave alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Raw, Struct
from pydicom.datadict import dictionary_VR, keyword_dict

from hilum.dicom import tag_of
from hilum.dicom.numbers import parts_of
from hilum.errors import HilumError, Misconfigured
from hilum.events import Finding, Instance, InstanceAccepted, ObjectRef, Source
from hilum.misfits import nearest, together
from hilum.settings import Example, Rule

from .compiled import FAILURES, Compiled, compiled
from .facts import STUDY, StudyFacts
from .names import ARRIVAL, Asked
from .rules import matches

_SOURCE = ("adapter", "calling_aet", "called_aet", "peer")
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class Tried(Struct, frozen=True, kw_only=True):
    """What came of one example. `says` is why the rule did not do what it was to do, empty if it did."""

    rule: str
    #: Which of the rule's examples, from 1.
    number: int
    about: str
    says: str

    @property
    def ok(self) -> bool:
        """Whether the rule did what it was to do."""
        return not self.says


def tried(rules: Iterable[Rule]) -> Iterator[Tried]:
    """Try the examples of `rules`, each against its own rule. Raises `Misconfigured` if a rule or an example cannot be read."""
    for rule in rules:
        if rule.tests:
            each = compiled(rule)
            for number, example in enumerate(rule.tests, 1):
                yield Tried(rule=rule.name, number=number, about=example.says, says=_outcome(each, example, number))


def check(rule: Rule) -> None:
    """Raise `Misconfigured` that names every example with which the rule does not do what it is to do."""
    failed = [each for each in tried([rule]) if not each.ok]
    if failed:
        raise together([_failure(each) for each in failed])


def _failure(failed: Tried) -> Misconfigured:
    about = f" ({failed.about})" if failed.about else ""
    sentence = f"Rule {failed.rule!r}, test {failed.number}{about}: {failed.says}."
    return Misconfigured("rule-test-failed", sentence, fix="Correct the rule or the test; `hilum rule test` tries them.")


def _outcome(each: Compiled, example: Example, number: int) -> str:
    rule = each.rule
    where = f"rule {rule.name!r}, test {number}"
    event = event_of(example, where)
    facts = _facts_of(example, rule, where)
    try:
        found = matches(each, Asked(event, event.instance.header))
        if found and each.study is not None:
            found = bool(each.study.matches((facts, int(example.study.get("matching", 1)))))
    except (HilumError, *FAILURES) as error:
        return f"the rule fails on it: {error.sentence if isinstance(error, HilumError) else type(error).__name__}"
    if found == example.matches:
        return ""
    return "it is to match, and does not" if example.matches else "it is to be left alone, and matches"


def event_of(example: Example, where: str) -> InstanceAccepted:
    """The arrival of the object that `example` describes. Raises `Misconfigured` that says `where`."""
    for name in example.arrival:
        if name not in ARRIVAL:
            near = nearest(name, ARRIVAL)
            fix = f"Did you mean {near}?" if near else f"Known: {', '.join(ARRIVAL)}."
            raise Misconfigured("rule-test-invalid", f"In {where}, `arrival` has {name!r}, which is unknown.", fix=fix)
    header = header_of(example.header, where)
    arrival = {name: value if name == "findings" else str(value) for name, value in example.arrival.items()}
    uids = {name: _uid(header, name) for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")}
    instance = Instance(
        receipt=where,
        study_instance_uid=uids["StudyInstanceUID"],
        series_instance_uid=uids["SeriesInstanceUID"],
        sop_instance_uid=uids["SOPInstanceUID"],
        sop_class_uid=uids["SOPClassUID"],
        transfer_syntax_uid=arrival.get("transfer_syntax", ""),
        object=ObjectRef(bucket="", key="", size_bytes=0, sha256=""),
        source=Source(**{"adapter": "dicom"} | {name: arrival[name] for name in _SOURCE if name in arrival}),
        received_at=_EPOCH,
        header_json=Raw(msgspec.json.encode(header)),
    )
    return InstanceAccepted(instance=instance, findings=tuple(Finding(code=str(code), sentence="") for code in arrival.get("findings", ())))


def _uid(header: Mapping[str, Any], keyword: str) -> str:
    values = header.get(tag_of(keyword), {}).get("Value") or [""]
    return str(values[0])


def _facts_of(example: Example, rule: Rule, where: str) -> StudyFacts:
    if example.study and rule.on != "study":
        raise Misconfigured(
            "rule-test-invalid", f'In {where}, `study` is for rules with on = "study".', fix="Take it out, or add it to the rule."
        )
    for name in example.study:
        if name not in STUDY:
            near = nearest(name, STUDY)
            fix = f"Did you mean {near}?" if near else f"Known: {', '.join(STUDY)}."
            raise Misconfigured("rule-test-invalid", f"In {where}, `study` has {name!r}, which is unknown.", fix=fix)
    facts = {"instances": 1, "series": 1} | {name: value for name, value in example.study.items() if name != "matching"}
    try:
        int(example.study.get("matching", 1))
        return msgspec.convert(facts, StudyFacts, strict=False)
    except (ValueError, TypeError):  # msgspec's own error is a ValueError
        raise Misconfigured(
            "rule-test-invalid", f"In {where}, a value of `study` does not fit.", fix='Write numbers, and modalities = ["CT"].'
        ) from None


# Headers


def header_of(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A header as DICOM JSON (PS3.18 F.2) from a table of keywords or tags. Raises `Misconfigured` that says `where`."""
    return dict(sorted(_element(name, value, where) for name, value in table.items()))


def _element(name: str, value: Any, where: str) -> tuple[str, dict[str, Any]]:
    parts = parts_of(name)
    if name in keyword_dict:
        tag = tag_of(name)
        vr = str(dictionary_VR(keyword_dict[name])).split(" or ")[0]
    elif parts is not None and parts[1] != "xx":
        tag = "".join(parts)
        vr = "LO" if isinstance(value, str) or not isinstance(value, (int, float)) else "FD"
    else:
        near = nearest(name, keyword_dict)
        fix = f"Did you mean {near}?" if near else 'Use DICOM keywords, or a tag such as "0009,1010".'
        raise Misconfigured("rule-test-invalid", f"In {where}, the header has {name!r}, which is unknown.", fix=fix)
    values = list(value) if isinstance(value, (list, tuple)) else [value] if value not in ("", None) else []
    found = {"vr": vr, "Value": [_value(vr, each, name, where) for each in values]} if values else {"vr": vr}
    return tag, found


def _value(vr: str, value: Any, name: str, where: str) -> Any:
    if vr == "SQ" and isinstance(value, Mapping):
        return header_of(value, where)
    if vr != "SQ" and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return {"Alphabetic": str(value)} if vr == "PN" else value
    fix = 'Write a list of tables: [{ CodeValue = "X" }].' if vr == "SQ" else 'Write text, numbers, or a list of them; dates as "20260131".'
    raise Misconfigured("rule-test-invalid", f"In {where}, the value of {name} does not fit.", fix=fix)
