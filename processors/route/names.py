"""What the names in a rule stand for: attributes of the object, facts about its arrival, and elements by number."""

from __future__ import annotations

import binascii
import difflib
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import rule_engine
from msgspec import Struct
from pydicom.datadict import dictionary_VM, dictionary_VR, keyword_dict

from hilum.dicom import Header, tag_of
from hilum.dicom.numbers import tag_numbered
from hilum.events import InstanceAccepted

from .facts import STUDY
from .sense import ITEM

_NUMBERS = frozenset({"DS", "IS", "US", "SS", "UL", "SL", "UV", "SV", "FL", "FD"})
_BULK = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
#: The function by which a rule asks for an element by its number: `tag("0009,1010", "GEMS_IDEN_01")`.
TAG = "tag"

kinds = rule_engine.DataType


class Fact(Struct, frozen=True):
    """What a rule may ask about an arrival."""

    says: str
    of: Callable[[InstanceAccepted], Any]


#: What a rule may ask about the arrival itself. All are text but `findings`, a list.
ARRIVAL: Mapping[str, Fact] = {
    "calling_aet": Fact("The sender's AE title.", lambda event: event.instance.source.calling_aet),
    "called_aet": Fact("The AE title that the sender called.", lambda event: event.instance.source.called_aet),
    "peer": Fact("The sender's address, without port.", lambda event: event.instance.source.peer),
    "adapter": Fact("The way in, such as `dicom`.", lambda event: event.instance.source.adapter),
    "transfer_syntax": Fact("UID of the transfer syntax in which it came.", lambda event: event.instance.transfer_syntax_uid),
    "findings": Fact("A list: the codes of its [findings](findings.md).", lambda event: tuple(finding.code for finding in event.findings)),
}


class Asked:
    """The object that rules are asked about. A name is looked up once, however many rules ask for it."""

    __slots__ = ("_values", "event", "header", "missing")

    def __init__(self, event: InstanceAccepted, header: Header) -> None:
        self.event = event
        self.header = header
        #: Whether something within a sequence, or by number, was asked for that is not there.
        self.missing = False
        self._values: dict[str, Any] = {}

    def value(self, name: str) -> Any:
        """What `name` stands for; None where it is absent or empty. Raises `CutValue`."""
        try:
            return self._values[name]
        except KeyError:
            found = self._values[name] = self._found(name)
            return found

    def _found(self, name: str) -> Any:
        if name in ARRIVAL:
            return ARRIVAL[name].of(self.event)
        if name == TAG:
            return self._by_number
        return _plain_of(self.header.values(name), name, self)

    def _by_number(self, number: str, creator: str = "") -> Any:
        tag = tag_numbered(self.header, number, creator)
        found = self.header.element(tag) if tag is not None else None
        value = _by_its_vr(found) if found is not None else None
        self.missing = self.missing or value is None
        return value


class Item:
    """An item of a sequence."""

    __slots__ = ("_asked", "_json")

    def __init__(self, json: Mapping[str, Any], asked: Asked) -> None:
        self._json = json
        self._asked = asked

    def value(self, name: str) -> Any:
        """What the attribute `name` of the item holds, None where it is absent or empty."""
        found = _plain_of(self._json.get(tag_of(name), {}).get("Value", ()), name, self._asked)
        self._asked.missing = self._asked.missing or found is None
        return found


def _plain_of(values: Any, name: str, asked: Asked) -> Any:
    if _vr(name) == "SQ":
        return tuple(Item(item if isinstance(item, Mapping) else {}, asked) for item in values)
    if not is_list(name):
        return _plain(values[0], name) if values else None
    return tuple(_plain(value, name) for value in values if value is not None)


def _plain(value: Any, name: str) -> Any:
    if value is None or value == "":
        return None
    if isinstance(value, dict):
        groups = [value.get(group, "") for group in ("Alphabetic", "Ideographic", "Phonetic")]
        return "=".join(groups).rstrip("=") if not is_list(name) else groups[0]
    if isinstance(value, str) and _vr(name) in _NUMBERS:
        try:
            return float(value)
        except ValueError:
            return None
    return value


def _by_its_vr(element: Mapping[str, Any]) -> Any:
    """The value of an element that no dictionary knows: text, a number, or a list of them, by its VR; bytes of unknown VR are text."""
    if "InlineBinary" in element:
        try:
            text = binascii.a2b_base64(element["InlineBinary"]).decode("ascii").strip(" \0")
        except (ValueError, UnicodeDecodeError):
            return None
        return text or None
    values = [each.get("Alphabetic", "") if isinstance(each, dict) else each for each in element.get("Value", ())]
    values = [each for each in values if each is not None and each != ""]
    if element.get("vr") == "SQ" or not values:
        return None
    return values[0] if len(values) == 1 else tuple(values)


@lru_cache(maxsize=4096)
def _vr(name: str) -> str:
    return str(dictionary_VR(keyword_dict[name])).split(" or ")[0]


@lru_cache(maxsize=4096)
def is_list(keyword: str) -> bool:
    """Whether an attribute may have several values, so that a rule sees a list (its VM in PS3.6 is not 1)."""
    return dictionary_VM(keyword_dict[keyword]) not in ("1", "0-1")


def type_of(name: str) -> Any:
    """The type of `name` for `rule_engine`. Raises `SymbolResolutionError` if nothing has it, `EvaluationError` if it is binary."""
    if name in ARRIVAL:
        return kinds.ARRAY(kinds.STRING) if name == "findings" else kinds.STRING
    if name == TAG:
        return kinds.FUNCTION(TAG, return_type=kinds.UNDEFINED, argument_types=(kinds.STRING, kinds.STRING), minimum_arguments=1)
    if name not in keyword_dict:
        raise rule_engine.SymbolResolutionError(name)
    if _vr(name) == "SQ":
        return kinds.ARRAY(_item())
    if _vr(name) in _BULK:
        raise rule_engine.EvaluationError(f"{name} is binary and cannot be compared")
    return _kind(name)


def _kind(name: str) -> Any:
    kind = kinds.FLOAT if _vr(name) in _NUMBERS else kinds.STRING
    return kinds.ARRAY(kind) if is_list(name) else kind


@lru_cache(maxsize=1)
def _item() -> Any:
    """What is known of any item: every attribute that is not binary. Made when the first rule names a sequence."""
    types = {}
    for keyword in keyword_dict:
        if not keyword:
            continue
        if _vr(keyword) == "SQ":
            types[keyword] = kinds.ARRAY(kinds.OBJECT.self)
        elif _vr(keyword) not in _BULK:
            types[keyword] = _kind(keyword)
    return kinds.OBJECT(ITEM, attributes=types, accessor=Item.value)


def nearest(name: str) -> str:
    """What to do about a name that nothing has."""
    if name in STUDY:
        return f'{name} is a fact about a study: it belongs into the rule\'s `study`, with on = "study".'
    near = difflib.get_close_matches(name, [*keyword_dict, *ARRIVAL, TAG], n=1, cutoff=0.6)
    return f"Did you mean {near[0]}?" if near else "Use a DICOM keyword, such as Modality, or one of: " + ", ".join(ARRIVAL) + "."
