"""De-identify one object (PS3.15 E): `anonymize` gives a new Part 10 file, or raises `Held` and gives nothing.

Two engines make the same data set: `walk.py` edits the bytes, `plain.py` uses pydicom for what is rare (big endian, elements out of order)
and for the preview. Policy, key, identity and original alone decide what comes out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from io import BytesIO
from mmap import mmap

from pydicom.filereader import read_dataset

from hilum.dicom.file_meta import part10_head
from processors.anonymize import plain
from processors.anonymize.held import Held, HeldReason, shown
from processors.anonymize.identity import Subject
from processors.anonymize.known_elements import ISSUER, LONG, PATIENT_ID, QUALIFIERS, SERIES, SOP_CLASS, SOP_INSTANCE, STUDY
from processors.anonymize.known_runs import Run
from processors.anonymize.needed import DOCUMENTS
from processors.anonymize.object_identity import check_same_class, new_uids, subject_from
from processors.anonymize.options import Option
from processors.anonymize.policy import Policy
from processors.anonymize.pseudonyms import Pseudonyms
from processors.anonymize.result import Anonymized, Context
from processors.anonymize.rules import Rules, rules_of
from processors.anonymize.source import Source, read_source, unreadable
from processors.anonymize.stamp import encoded, stamp
from processors.anonymize.types import is_standard
from processors.anonymize.values import Values
from processors.anonymize.walk import Edit, Known, Later, Unusual, Walk

#: Slices longer than this are not copied.
_SLICE_BYTES = 16 * 1024
_NONE: frozenset[Option] = frozenset()


def anonymize(
    original: bytes | mmap, context: Context, *, trace: bool = False, cleaned: frozenset[Option] = _NONE, derived: bool = False
) -> Anonymized:
    """The object as the policy lets it out. Raises `Held`, and nothing else, whatever the bytes are.

    `original` is a whole Part 10 file, and must live as long as the result. `cleaned` are the options about pixels that somebody has
    carried out on every frame of it: only then does the object say so; a `derived` one keeps the DerivationDescription that whoever changed
    its pixels wrote. With `trace` each element is told of, which takes longer.
    """
    try:
        return _anonymized(original, context, trace, cleaned, derived)
    except Held:
        raise
    except Exception:  # whatever bytes may cause; its text might hold some of them
        raise unreadable("It cannot be read as DICOM (PS3.5 7).") from None


def _anonymized(original: bytes | mmap, context: Context, trace: bool, cleaned: frozenset[Option], derived: bool) -> Anonymized:
    source = read_source(original)
    _check_class(source.sop_class_uid, context.policy)
    rules = rules_of(context.policy, source.sop_class_uid, cleaned, derived=derived)
    if not trace and not source.big_endian:
        try:
            return edited(source, rules, context)
        except Unusual:
            pass
    said = stamp(context.policy, context.pseudonyms.key_id, cleaned)
    return plain.anonymized(source, rules, context, said, trace=trace)


def _check_class(sop_class_uid: str, policy: Policy) -> None:
    if not is_standard(sop_class_uid):
        raise Held(
            HeldReason.PRIVATE_SOP_CLASS,
            "Its SOP class is private, or none that is stored: nobody's table says what its attributes hold.",
            fix="Leave such objects out of what goes to this destination.",
        )
    if sop_class_uid.startswith(DOCUMENTS):
        raise Held(
            HeldReason.DOCUMENT,
            "It is an encapsulated document, in which nothing can be told from identities.",
            fix="Leave such objects out of what goes to this destination.",
        )
    if sop_class_uid in policy.refuse:
        raise Held(HeldReason.POLICY, "The policy refuses objects of its SOP class.", fix="Take the class out of the policy's `refuse`.")


@lru_cache(maxsize=128)
def _stamps(rules: Rules, key_id: str, explicit: bool) -> tuple[tuple[int, bytes], ...]:
    return encoded(stamp(rules.policy, key_id, rules.cleaned), explicit=explicit)


def edited(source: Source, rules: Rules, context: Context) -> Anonymized:
    """The object by edits of its bytes. Raises `Unusual` for what is not done so."""
    data = source.data
    walk = Walk(data, rules, _stamps(rules, context.pseudonyms.key_id, source.explicit))
    walk.data_set(source.start, explicit=source.explicit)

    def value(tag: int) -> bytes:
        start, stop = walk.found.get(tag, (0, 0))
        return bytes(data[start:stop])

    check_same_class(value(SOP_CLASS), source)
    subject = context.subject or _subject(walk, value, source.explicit, context)
    values = _values(rules, context.pseudonyms, subject, frozenset().union(*walk.names))
    uids = new_uids(rules, context, value(SOP_INSTANCE), value(STUDY), value(SERIES))
    head = part10_head(source.sop_class_uid, uids[0], source.transfer_syntax_uid)
    view, at = memoryview(data), source.start
    parts: list[bytes | memoryview] = []
    small: list[bytes | memoryview] = [] if source.deflated else [head]
    for edit in walk.edits:
        start, stop, insert = _edit(data, edit, values)
        if insert is None:
            continue
        if start > at:
            if start - at > _SLICE_BYTES:
                parts += [b"".join(small), view[at:start]]
                small = []
            else:
                small.append(view[at:start])
        if insert:
            small.append(insert)
        at = stop
    parts += [b"".join(small), view[at:]]
    parts = [part for part in parts if len(part)]
    return Anonymized(
        parts=[head, *source.whole(parts)] if source.deflated else parts,
        sop_instance_uid=uids[0],
        study_instance_uid=uids[1],
        series_instance_uid=uids[2],
        patient=context.pseudonyms.patient_id(subject),
    )


def _edit(data: bytes | mmap, edit: Edit, values: Values) -> tuple[int, int, bytes | None]:
    """From where to where, and by what it is replaced; None if all stays as it is."""
    if isinstance(edit, Known):
        start, run, stop = edit
        whose = values if run.of_patient else values.pseudonyms
        outcome = run.outcomes.get(whose)
        return start, stop, run.remember(whose, _became(run, values)) if outcome is None else outcome
    if isinstance(edit, Later):
        raw = bytes(data[edit.value_at : edit.end])
        new = values.of(edit.entry.decision, raw, edit.charset)
        return edit.start, edit.end, b"" if new is None else None if new == raw else _made(data, edit, new)
    return edit


def _became(run: Run, values: Values) -> bytes:
    whole, at = run.whole, 0
    parts: list[bytes] = []
    for edit in run.edits or ():
        start, stop, insert = _edit(whole, edit, values)
        if insert is not None:
            parts += [whole[at:start], insert]
            at = stop
    return b"".join((*parts, whole[at:]))


@lru_cache(maxsize=1024)
def _values(rules: Rules, pseudonyms: Pseudonyms, subject: Subject, names: frozenset[str]) -> Values:
    """One for all objects of a patient, by which it is known what became of runs."""
    return Values(rules, pseudonyms, subject, names)


def _subject(walk: Walk, value: Callable[[int], bytes], explicit: bool, context: Context) -> Subject:
    universal = ""
    if QUALIFIERS in walk.found:
        item = read_dataset(BytesIO(value(QUALIFIERS)), not explicit, True)[QUALIFIERS].value
        universal = str(item[0].get("UniversalEntityID", "") or "") if item else ""
    text = walk.charset.text
    patient_id, issuer = text(value(PATIENT_ID), PATIENT_ID), text(value(ISSUER), ISSUER)
    return subject_from(patient_id, issuer, universal, value(STUDY), context)


def _made(data: bytes | mmap, later: Later, value: bytes) -> bytes:
    """A whole element with another value."""
    head = bytes(data[later.start : later.start + 4])
    if not later.explicit:
        return head + struct.pack("<I", len(value)) + value
    vr = later.entry.vr
    if vr in LONG:
        return head + vr + b"\0\0" + struct.pack("<I", len(value)) + value
    if len(value) > 0xFFFE:
        raise unreadable("Its value is longer than its VR allows.", shown(later.entry.tag))
    return head + vr + struct.pack("<H", len(value)) + value
