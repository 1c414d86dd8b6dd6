"""What holds of any text, any query and any sequence of messages."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hilum.dicom.dataset import read_header
from hilum.dicom.writing import character_set, encode, transliterated
from hilum.settings import Settings
from hilum.settings import Spool as SpoolSettings
from ingest.worklist.attributes import WORKLIST
from ingest.worklist.matching import matcher, wild
from ingest.worklist.packed import pack, said, unpack
from tests.ingest.worklist.steps import EXPLICIT, IMPLICIT, ITEMS
from tests.ingest.worklist.test_performed import END, Modality

_LETTERS = st.text("ab?*", max_size=10)
_TEXTS = st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\\^="), min_size=1, max_size=20).map(str.strip)

_NAMES = st.text("aBzÄöüßéñÅøŁжЯйΩσς山田 -'", min_size=1, max_size=20).filter(str.strip)


@given(pattern=_LETTERS, text=st.text("ab", max_size=12))
def test_wild_cards_mean_what_they_mean_elsewhere(pattern: str, text: str) -> None:
    expression = "".join({"*": ".*", "?": "."}.get(each, each) for each in pattern)

    assert wild(pattern)(text) == bool(re.fullmatch(expression, text))


@given(pattern=st.text("a*?", min_size=1, max_size=300), text=st.text("ab", max_size=64))
@settings(deadline=5000)  # ms: what takes exponential time takes hours, and a busy machine may stand still for a second
def test_no_pattern_takes_long(pattern: str, text: str) -> None:
    wild(pattern)(text)


@given(family=_NAMES, given_name=_NAMES)
def test_every_name_is_found_by_itself_in_any_case(family: str, given_name: str) -> None:
    name = f"{family}^{given_name}"
    for key in (name, name.upper(), name.lower(), f"{family}*"):
        match = matcher("PN", [{"Alphabetic": key}])
        assert match is not None
        assert match([name])


@given(text=_TEXTS.filter(bool), explicit=st.booleans(), terms=st.sampled_from(["ISO_IR 192", "ISO_IR 100", "ISO_IR 144", ""]))
def test_text_is_read_as_it_was_written_or_as_it_was_transliterated(text: str, explicit: bool, terms: str) -> None:
    chosen = character_set(terms)
    assert chosen is not None
    raw = encode({"00100020": {"vr": "LO", "Value": [text]}}, chosen, explicit=explicit)

    read = read_header(raw, EXPLICIT if explicit else IMPLICIT, full=True)

    assert read.fault == ""
    said_text = transliterated(text, lambda each: chosen.encode(each) is not None)
    assert read.json["00100020"].get("Value", [""])[0] == said_text.strip()


def test_every_item_is_read_as_it_was_written() -> None:
    unicode = character_set("ISO_IR 192")
    assert unicode is not None
    for item in ITEMS.values():
        for explicit in (True, False):
            read = read_header(encode(item, unicode, explicit=explicit), EXPLICIT if explicit else IMPLICIT, full=True).json
            read.pop("00080005", None)
            assert read == item
        packed = said(unpack(pack(item)), WORKLIST)
        assert {tag: list(element["Value"]) for tag, element in packed.items() if element["vr"] not in ("SQ",)} == {
            tag: element["Value"] for tag, element in item.items() if element["vr"] != "SQ"
        }


_SAYS = st.lists(
    st.tuples(st.sampled_from(["create", "go on", "complete", "discontinue"]), st.sampled_from(["2.25.1", "2.25.2"])), max_size=12
)


@given(says=_SAYS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_step_begins_once_and_ends_once(says: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        modality = Modality(Settings(data=str(Path(name)), spool=SpoolSettings(min_free_bytes=0)))
        states: dict[str, str] = {}
        events: list[tuple[str, str]] = []
        for what, uid in says:
            before = states.get(uid)
            keys: dict[str, Any] = {"complete": END, "discontinue": END | {"PerformedProcedureStepStatus": "DISCONTINUED"}}.get(
                what, {"PerformedProcedureStepDescription": "x"}
            )
            status = modality.create(uid)[0] if what == "create" else modality.set(keys, uid)[0]
            if what == "create":
                assert status == (0x0111 if before else 0)
                after = before or "in-progress"
            else:
                assert status == (0x0112 if before is None else 0x0110 if before != "in-progress" else 0)
                after = {"complete": "completed", "discontinue": "discontinued"}.get(what, "in-progress")
            if status == 0:
                states[uid] = after
                events.append((uid, after))
        told = modality.events()
        assert [(each.sop_instance_uid, each.state) for each in told] == events
        for uid in states:
            assert [each.revision for each in told if each.sop_instance_uid == uid] == list(
                range(1, 1 + sum(each.sop_instance_uid == uid for each in told))
            )
