"""What another policy lets out that the former one did not: in words, for whoever is about to put it in force."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from hilum.errors import Misconfigured
from processors.anonymize.options import Option
from processors.anonymize.policy import Mask, Policy, PrivateElement, Wish, path_of
from processors.anonymize.risky import Kind, said_of

_NAMED = 5
_GAINED = {
    Option.RETAIN_SAFE_PRIVATE: "private elements of the safe list will leave (were removed)",
    Option.RETAIN_UIDS: "UIDs of the originals will leave (were replaced)",
    Option.RETAIN_DEVICE_IDENTITY: "names and serial numbers of devices will leave (were removed)",
    Option.RETAIN_INSTITUTION_IDENTITY: "names and addresses of institutions will leave (were removed)",
    Option.RETAIN_PATIENT_CHARACTERISTICS: "age, sex, size, weight and the like of patients will leave (were removed)",
    Option.CLEAN_DESCRIPTORS: "descriptions will leave, cleaned (were removed)",
    Option.CLEAN_STRUCTURED_CONTENT: "content of reports will leave, its text cleaned (was removed)",
    Option.CLEAN_GRAPHICS: "annotations will leave, their text replaced (were removed)",
}
_LOST = {
    Option.CLEAN_PIXEL_DATA: "images that no mask fits will leave (were held)",
    Option.CLEAN_RECOGNIZABLE_VISUAL_FEATURES: "faces are not asked to be taken out of heads (were)",
}
#: How much of dates leaves, from nothing on.
_DATES = ("removed", "shifted", "full")
#: How much leaves of an attribute about which a policy says so.
_WISHES: tuple[Wish, ...] = ("remove", "empty", "replace", "clean", "keep")
_HOW = {"hold": "held", "mask": "painted over", "clean": "cleaned", "deface": "defaced", "pass": "as they are"}
_MUCH = {"hold": 0, "mask": 1, "clean": 1, "deface": 1, "pass": 2}


def looser(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What a published policy lets out beyond what a former one did, a phrase each; none if it lets out nothing more.

    Of both as `hilum.anonymizing.policy_table` gives them. A former one that this release cannot read is said to be that.
    """
    if before.get("policy") == after.get("policy"):
        return []
    try:
        old, new = (msgspec.convert(msgspec.json.decode(msgspec.json.encode(each.get("policy"))), Policy) for each in (before, after))
    except msgspec.ValidationError:
        return ["whether more will leave cannot be told: this release cannot read one of both policies"]
    return [
        *_options(old, new),
        *_attributes(old, new),
        *_private(old, new),
        *_kinds(old, new),
        *_masks(old, new),
        *_text(old, new),
        *_others(old, new),
    ]


def _dates(policy: Policy) -> int:
    if Option.RETAIN_FULL_DATES.keyword in policy.options:
        return 2
    return int(Option.RETAIN_MODIFIED_DATES.keyword in policy.options)


def _options(old: Policy, new: Policy) -> Iterator[str]:
    was, now = _dates(old), _dates(new)
    if now > was:
        yield f"{'full dates' if now == 2 else 'dates, shifted,'} will leave (were {_DATES[was]})"  # the last of `_DATES`
    yield from (says for option, says in _GAINED.items() if option.keyword in new.options and option.keyword not in old.options)
    yield from (says for option, says in _LOST.items() if option.keyword in old.options and option.keyword not in new.options)


def _attributes(old: Policy, new: Policy) -> Iterator[str]:
    was, now = _wishes(old), _wishes(new)
    for path, (name, wish) in now.items():
        former = was[path][1] if path in was else None
        if former is None and wish in ("clean", "keep"):
            yield f"{name} will leave ({wish}; the profile alone had it)"
        elif former is not None and _WISHES.index(wish) > _WISHES.index(former):
            yield f"{name} will leave more of itself ({wish}; was {former})"
    for path, (name, wish) in was.items():
        if path not in now and wish not in ("clean", "keep"):
            yield f"{name} will leave as the profile has it (was {wish})"


def _wishes(policy: Policy) -> dict[object, tuple[str, Wish]]:
    found: dict[object, tuple[str, Wish]] = {}
    for name, wish in policy.attributes.items():
        path: object = name
        with suppress(Misconfigured):  # of another release's dictionary
            path = path_of(name)
        found[path] = name, wish
    return found


def _private(old: Policy, new: Policy) -> Iterator[str]:
    def place(each: PrivateElement) -> tuple[str, str, str]:
        return each.creator, each.element.strip("()").lower(), each.vr

    former = {place(each) for each in old.private}
    for each in new.private:
        if place(each) not in former:
            yield f"the private element {each.element} of {each.creator} will leave, as {each.vr} (was removed, or another VR)"


def _kinds(old: Policy, new: Policy) -> Iterator[str]:
    for kind in Kind:
        was, now = said_of(kind, old.kinds), said_of(kind, new.kinds)
        if _MUCH.get(now, 2) > _MUCH.get(was, 0):
            yield f"objects of the kind {kind} will leave {_HOW.get(now, now)} (were {_HOW.get(was, was)})"


def _masks(old: Policy, new: Policy) -> Iterator[str]:
    for mask in old.masks:
        if mask not in new.masks and not mask.clean:
            yield f"a mask that paints over images of {_images(mask)} is gone, or another one"
    for mask in new.masks:
        if mask not in old.masks and mask.clean:
            yield f"images of {_images(mask)} will leave with nothing painted over, as looked at (clean = true)"


def _images(mask: Mask) -> str:
    size = f"{mask.columns or '*'} x {mask.rows or '*'}" if mask.columns or mask.rows else ""
    return " ".join(filter(None, (mask.manufacturer, mask.model, mask.software, mask.sop_class, size))) or "any device"


def _text(old: Policy, new: Policy) -> Iterator[str]:
    was, now = old.text, new.text
    if was is None:
        return
    if now is None:
        yield "text in pixels is not looked for (was)"
        return
    if (was.found, now.found) == ("hold", "mask"):
        yield "images in which text is found will leave, painted over (were held)"
    if now.threshold > was.threshold:
        yield f"text in pixels must be read with a confidence of {now.threshold} to be seen (was {was.threshold})"
    if now.frames < was.frames:
        yield f"text is looked for in {now.frames} frames of an object (was {was.frames})"


def _others(old: Policy, new: Policy) -> Iterator[str]:
    if words := sorted({*new.words} - {*old.words}):
        named = ", ".join(words[:_NAMED]) + (f" and {len(words) - _NAMED} more" if len(words) > _NAMED else "")
        yield f"cleaned text will keep the words {named}"
    if new.character_set and new.character_set != old.character_set:
        former = f"was as {old.character_set}" if old.character_set else "they were held"
        yield f"text of objects that name no character set will leave, read as {new.character_set} ({former})"
    for sop_class in sorted({*old.refuse} - {*new.refuse}):
        yield f"objects of the SOP class {sop_class} will leave (were refused)"
    if new.domain != old.domain:
        joined = "what leaves can be joined with what left for it"
        yield f"pseudonyms will be those of the project {new.domain} (were of {old.domain}): {joined}"
    if new.reverse and not old.reverse:
        yield "a sealed table will lead back from pseudonyms"
