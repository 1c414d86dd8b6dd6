"""The plain engine: pydicom reads the data set, each element is decided one by one, pydicom writes it.

It shares the rules and the values with the fast engine and nothing of how an object is read or written: the tests hold one against the
other. It takes what is rare, and tells of each element when somebody asks.
"""

from __future__ import annotations

import struct
from io import BytesIO

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from hilum.dicom.file_meta import part10_head
from processors.anonymize.charsets import Charset, charset
from processors.anonymize.comments import blanked
from processors.anonymize.held import AT_ITS_SOURCE, Held, HeldReason, shown
from processors.anonymize.object_identity import check_same_class, new_uids, subject_from
from processors.anonymize.printable import printable
from processors.anonymize.result import Action, Anonymized, Context
from processors.anonymize.rules import PATIENT_ID, Act, Decision, Level, Rules
from processors.anonymize.source import Source, truncated, unreadable
from processors.anonymize.table import vr_of
from processors.anonymize.twice import check_once
from processors.anonymize.values import Values, held_by
from processors.anonymize.walk import MAX_DEPTH
from processors.anonymize.words import name_words

_CHARACTER_SET = 0x00080005
#: What pydicom decodes while it reads: character set and PixelRepresentation. Neither is changed here.
_READ_AT_ONCE = (_CHARACTER_SET, 0x00280103)
_UNDEFINED = 0xFFFFFFFF
#: Which of several VRs is written for an element within UN, which has none of its own (PS3.5 6.2.2): the bytes are the same.
_OF_SEVERAL = {"US or SS": "US", "US or OW": "OW", "US or SS or OW": "OW", "OB or OW": "OW"}


def anonymized(source: Source, rules: Rules, context: Context, stamp: Dataset, *, trace: bool = False) -> Anonymized:
    """See `engine.anonymize`; `stamp` are the elements that the top level gets."""
    buffer = BytesIO(bytes(source.data[source.start :]))
    ds = read_dataset(buffer, not source.explicit, not source.big_endian)
    # What is not touched is written as it was read.
    ds.set_original_encoding(not source.explicit, not source.big_endian, ds._character_set)
    if buffer.read(1):
        raise unreadable("It holds more than a data set.")
    check_same_class(_raw(ds, 0x00080016), source)
    uids = new_uids(rules, context, *(_raw(ds, tag) for tag in (0x00080018, 0x0020000D, 0x0020000E)))
    text = charset(_raw(ds, _CHARACTER_SET), rules.policy.character_set)
    subject = context.subject
    if subject is None:
        qualifiers = ds.get("IssuerOfPatientIDQualifiersSequence") or [Dataset()]
        universal = str(qualifiers[0].get("UniversalEntityID", "") or "")
        patient_id, issuer = (text.text(_raw(ds, tag), tag) for tag in (PATIENT_ID, 0x00100021))
        subject = subject_from(patient_id, issuer, universal, _raw(ds, 0x0020000D), context)
    work = _Work(rules, source, trace)
    names: set[str] = set()
    work.names(ds, rules.top, names, 0)
    work.values = Values(rules, context.pseudonyms, subject, frozenset(names))
    work.level(ds, rules.top, text, "", 0)
    check_once(source, rules.top)
    ds.update(stamp)
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = not source.big_endian, not source.explicit
    write_dataset(out, ds)
    head = part10_head(source.sop_class_uid, uids[0], source.transfer_syntax_uid)
    return Anonymized(
        parts=[head, *source.whole([out.getvalue()])],
        sop_instance_uid=uids[0],
        study_instance_uid=uids[1],
        series_instance_uid=uids[2],
        patient=context.pseudonyms.patient_id(subject),
        actions=work.actions,
    )


def _raw(ds: Dataset, tag: int) -> bytes:
    """The value of a text element as it is encoded, `b""` if it is not there."""
    element = ds.get_item(tag, keep_deferred=True)
    return b"" if element is None else _bytes(element)


def _bytes(element: DataElement | RawDataElement) -> bytes:
    """The value as it is encoded."""
    if isinstance(element, RawDataElement):
        return element.value or b""
    if element.tag not in _READ_AT_ONCE:
        raise unreadable("It has no length, and is no sequence.", shown(int(element.tag)))
    if element.tag == _CHARACTER_SET:
        values = [element.value] if element.VM < 2 else element.value
        return "\\".join(str(value or "") for value in values).encode("latin-1", "replace")
    return b"" if element.value is None else struct.pack("<H", element.value)


class _Work:
    """One object at work."""

    values: Values

    def __init__(self, rules: Rules, source: Source, trace: bool) -> None:
        self.actions: list[Action] = []
        self._rules = rules
        self._source = source
        self._trace = trace

    def names(self, ds: Dataset, level: Level, found: set[str], depth: int) -> None:
        """Collect the words of people's names wherever the engine looks."""
        if depth > MAX_DEPTH:
            raise Held(HeldReason.NESTING, f"Sequences are nested more than {MAX_DEPTH} deep.", fix=AT_ITS_SOURCE)
        for tag in sorted(ds.keys()):
            element = ds.get_item(tag, keep_deferred=True)
            assert element is not None
            decision = level.decide(int(tag), element.VR or "") if not tag.is_private else None
            if decision is None:
                continue
            if decision.act is Act.DESCEND and element.VR in ("SQ", "UN", None):
                for item in _items(ds, tag):
                    self.names(item, level.inside(decision), found, depth + 1)
            elif decision.vr == "PN" and isinstance(element, RawDataElement):
                found |= name_words(element.value or b"")

    def level(self, ds: Dataset, level: Level, text: Charset, path: str, depth: int) -> None:
        """Change a data set, or an item, in place."""
        own = _raw(ds, _CHARACTER_SET)
        if own or _CHARACTER_SET in ds:
            text = charset(own, self._rules.policy.character_set)
        creators: dict[int, str] = {}
        for tag in sorted(ds.keys()):
            element = ds.get_item(tag, keep_deferred=True)
            assert element is not None
            if isinstance(element, RawDataElement) and element.length != _UNDEFINED and len(element.value or b"") != element.length:
                raise truncated(shown(int(tag)))
            if self._source.explicit and isinstance(element, RawDataElement) and element.VR is None:
                element = ds[tag] = element._replace(VR=_OF_SEVERAL.get(vr_of(int(tag))))
            decision = self._decide(tag, element, level, creators)
            if decision.act is Act.DESCEND:
                self._tell(decision, element, "", "", path)
                for n, item in enumerate(_items(ds, tag)):
                    self.level(item, level.inside(decision), text, f"{path}{shown(int(tag))}[{n + 1}]/", depth + 1)
                continue
            if decision.act is Act.REMOVE:
                self._tell(decision, element, self._shown(element, text), None, path)
                del ds[tag]
                continue
            if decision.act is Act.HOLD:
                raise held_by(decision)
            if decision.vr == "SQ":
                if decision.act is not Act.EMPTY:
                    raise Held(
                        HeldReason.VR_UNEXPECTED, "A sequence that is encoded as something else.", fix=AT_ITS_SOURCE, place=shown(int(tag))
                    )
                self._tell(decision, element, self._shown(element, text), "", path)
                ds[tag] = DataElement(tag, "SQ", Sequence())
                continue
            self._value(ds, tag, element, decision, text, path)

    def _decide(self, tag: BaseTag, element: DataElement | RawDataElement, level: Level, creators: dict[int, str]) -> Decision:
        number, vr = int(tag), element.VR or ""
        if not tag.is_private:
            return level.decide(number, vr)
        gone = level.decide(number, "")
        if not self._rules.private or not isinstance(element, RawDataElement):
            return gone
        group, place = number >> 16, number & 0xFFFF
        if 0x10 <= place <= 0xFF:
            creator = (element.value or b"").decode("latin-1").strip("\0 ")
            creators[group << 8 | place] = creator
            if (creator, group) not in self._rules.creators:
                return gone
            if vr not in ("", "LO", "UN"):
                raise Held(HeldReason.PRIVATE_CREATOR, "A private creator is LO (PS3.5 7.8.1).", fix=AT_ITS_SOURCE, place=shown(number))
            return Decision(Act.KEEP, number, "", "LO", "K", "The creator of a block of which something may stay.")
        creator = creators.get(group << 8 | place >> 8, "")
        found = self._rules.of_private(creator, number) if creator else None
        if found is None or element.length == _UNDEFINED:
            return gone
        if vr not in ("", "UN", found.vr):
            raise Held(
                HeldReason.PRIVATE_CREATOR,
                f"The element is not what the creator of its block makes it: it says that it is {vr}, not {found.vr}.",
                fix="Take it out of the policy's private elements, or have the sender corrected.",
                place=shown(number),
            )
        return found

    def _value(
        self, ds: Dataset, tag: BaseTag, element: DataElement | RawDataElement, decision: Decision, text: Charset, path: str
    ) -> None:
        raw = _bytes(element)
        if isinstance(element, RawDataElement) and element.length == _UNDEFINED:
            if decision.act is not Act.KEEP:
                raise unreadable("It has no length, and is no sequence.", shown(int(tag)))
            new: bytes | None = blanked(raw)
        elif decision.act is Act.CHARACTER_SET:
            charset(raw, self._rules.policy.character_set)
            new = raw
        else:
            new = self.values.of(decision, raw, text)
        if new is None:
            self._tell(decision, element, self._shown(element, text), None, path)
            del ds[tag]
            return
        changed = new != raw
        if changed and isinstance(element, RawDataElement):
            length = element.length if element.length == _UNDEFINED else len(new)
            ds[tag] = element._replace(value=new, length=length, VR=self._vr(element.VR, decision), is_raw=True)
        if self._trace:
            after = self._printable(new, element, text)
            self._tell(decision, element, self._printable(raw, element, text), after, path, changed=changed)

    def _vr(self, vr: str | None, decision: Decision) -> str | None:
        """The VR under which a new value is written."""
        if vr is None or vr == decision.vr or vr in ("LO", "LT", "SH", "ST", "UC", "UT"):
            return vr
        return decision.vr.partition(" ")[0]

    def _shown(self, element: DataElement | RawDataElement, text: Charset) -> str:
        if not self._trace:
            return ""
        if element.VR == "SQ" and not isinstance(element, RawDataElement):
            return f"{len(element.value or ())} items"
        return self._printable(_bytes(element), element, text)

    def _printable(self, raw: bytes, element: DataElement | RawDataElement, text: Charset) -> str:
        return printable(raw, element.VR or vr_of(int(element.tag)), text, big_endian=self._source.big_endian)

    def _tell(
        self,
        decision: Decision,
        element: DataElement | RawDataElement,
        before: str,
        after: str | None,
        path: str,
        *,
        changed: bool | None = None,
    ) -> None:
        """`changed` says whether the bytes are others; without, what is shown says so."""
        if not self._trace:
            return
        self.actions.append(
            Action(
                path=f"{path}{shown(int(element.tag))}",
                keyword=decision.keyword,
                vr=element.VR or decision.vr,
                code=decision.code,
                act=decision.act.name.lower(),
                why=decision.why,
                before=before,
                after=after,
                changed=before != after if changed is None else changed,
            )
        )


def _items(ds: Dataset, tag: BaseTag) -> list[Dataset]:
    value = ds[tag].value
    if not isinstance(value, Sequence):
        raise unreadable("A sequence that is encoded as something else.", shown(int(tag)))
    return list(value)
