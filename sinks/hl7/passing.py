"""Messages of others that are passed on: byte for byte, or changed and then in a character set that they declare."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from hilum.dicom.writing import transliterated
from hilum.events import MessageReceived
from hilum.hl7.charset import codec, encode, fits
from hilum.hl7.message import parse
from hilum.hl7.outgoing import changed
from hilum.notices import Composed


def passed_on(event: MessageReceived, values: Mapping[str, str], without: Collection[str], character_set: str) -> Composed | None:
    """The message with these values by path and without these segments; None if it is too large to be changed.

    One in which that changes nothing goes out as it came. One that is changed stays in its sender's character set; if that does not hold
    what is set, it gets `character_set` as its MSH-18, and is written in that. So is one of which `values` set MSH-18, in what they say.
    """
    if event.text_cut and (values or without):
        return None
    text = event.text if event.text_cut else changed(parse(event.text), values, without)
    if text == event.text and (event.object_key or event.raw):
        return Composed(text=text, content=event.raw or None, bucket=event.bucket, object_key=event.object_key)
    if "MSH-18" in values and fits("", said := parse(text).get("MSH-18")):
        return _written(text, said)
    try:
        return Composed(text=text, content=text.encode(event.read_as or _declared(event)))
    except (UnicodeEncodeError, LookupError):  # `iso2022` is no codec of Python's
        return _written(changed(parse(text), {"MSH-18": character_set}, ()), character_set)


def _written(text: str, character_set: str) -> Composed:
    return Composed(text=text, content=encode(transliterated(text, lambda each: fits(each, character_set)), character_set))


def _declared(event: MessageReceived) -> str:
    """The codec of an older event, which does not say as what it was read."""
    return codec(event.character_set.partition("~")[0]) or "ascii"
