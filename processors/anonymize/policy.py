"""A policy: what a project may have of an object. One TOML file a policy; `version` names exactly what it says.

Shipped: `basic` (the Basic Profile and nothing retained) and `research`, in `processors/anonymize/policies/`. A site's own stand in
`config/policies/` and win over shipped ones of the same name.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.resources
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field
from msgspec.structs import replace
from pydicom.datadict import keyword_dict, tag_for_keyword

from hilum.dicom.character_sets import python_encoding
from hilum.errors import Misconfigured
from hilum.misfits import misfits, nearest, together
from processors.anonymize.needed import classes_that_need, in_words
from processors.anonymize.options import OPTIONS, Option
from processors.anonymize.risky import Kind, said_of, wrong_in
from processors.anonymize.sop_classes import by_name, meant, name_of
from processors.anonymize.table import EDITION, EDITION_OF_OPTIONS, row_of, vr_of
from processors.anonymize.types import is_standard

#: Raised when the same policy makes other objects than before of the same original: it is part of every version.
ENGINE = 5

#: What a policy may say of one attribute, stricter than the profile, or, where the standard's table is silent, laxer.
Wish = Literal["remove", "empty", "replace", "clean", "keep"]
_DONE = {"remove": "removed", "empty": "emptied", "replace": "replaced", "clean": "cleaned", "keep": "kept"}
_KINDS = tuple(str(kind) for kind in Kind)
_PRIVATE_VRS = ("CS", "DS", "IS", "FL", "FD", "SL", "SS", "UL", "US", "SV", "UV", "DA", "TM", "DT", "SH", "LO", "UI")
#: Names that go into the object (LO, 64 characters), and of projects.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_TAG = re.compile(r"\(?([0-9A-Fa-f]{4}),? ?([0-9A-Fa-f]{4})\)?")
_PRIVATE = re.compile(r"\(?([0-9A-Fa-f]{3}[13579BDFbdf]),xx([0-9A-Fa-f]{2})\)?")


class PrivateElement(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A private element that may stay (PS3.15 E.3.10)."""

    creator: Annotated[str, Meta(min_length=1)]
    #: Its group, and its place in the creator's block: `0019,xx0C`.
    element: str
    #: What it must be: another VR, or a value that does not fit it, is not passed.
    vr: str
    name: str = ""


class Mask(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is painted over in the pixels of a device's images. What is not said fits any."""

    manufacturer: str = ""
    model: str = ""
    software: str = ""
    sop_class: str = ""
    rows: Annotated[int, Meta(ge=0)] = 0
    columns: Annotated[int, Meta(ge=0)] = 0
    #: Rectangles as left, top, width, height in pixels, counted from 0.
    boxes: tuple[tuple[int, int, int, int], ...] = ()
    #: Everything outside the ultrasound regions (PS3.3 C.8.5.5) is painted over as well.
    outside_regions: bool = False
    #: Nothing needs to be painted over: somebody has looked.
    clean: bool = False


class Text(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What becomes of images in which text is found, with the extra `ocr`; see `processors.anonymize.text`."""

    #: `hold`: they do not leave. `mask`: it is painted over.
    found: Literal["hold", "mask"] = "hold"
    #: With what confidence the model must have read it.
    threshold: Annotated[float, Meta(ge=0.05, le=0.95)] = 0.6
    #: Of an object, so many frames are looked at, spread evenly; what is found is painted over in all of them.
    frames: Annotated[int, Meta(ge=1)] = 8


class Policy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a TOML file says. Made by `policy_of`, which checks it."""

    name: str = ""
    #: For people.
    summary: str = ""
    #: Whose pseudonyms are used: two projects that must not be joined have two. The policy's name if it says nothing.
    domain: str = ""
    #: Options of the Basic Profile, by name.
    options: tuple[str, ...] = ()
    #: What becomes of attributes, by keyword or tag (`(0008,1030)`), or by a path of those with `/`, from the top.
    attributes: Mapping[str, Wish] = field(default_factory=dict)
    #: Private elements that may stay beside the shipped list, with `retain-safe-private`.
    private: tuple[PrivateElement, ...] = ()
    #: Words that cleaned text may keep beside the shipped vocabulary.
    words: tuple[str, ...] = ()
    #: The character set of text outside ASCII in objects that name none; without it they are held.
    character_set: str = ""
    #: SOP classes whose objects are not de-identified: by UID, or by name or keyword of PS3.6, which become UIDs; and risky kinds, which
    #: become `hold` in `kinds`.
    refuse: tuple[str, ...] = ()
    #: What becomes of objects of risky kinds, by kind; see `processors.anonymize.risky`.
    kinds: Mapping[str, str] = field(default_factory=dict)
    masks: tuple[Mask, ...] = ()
    #: Text is looked for in what masks leave of an image; without this, it is not.
    text: Text | None = None
    #: Whether a sealed table leads back from pseudonyms; see `processors.anonymize.reverse`.
    reverse: bool = False

    @property
    def version(self) -> str:
        """12 hexadecimal digits: of all that decides what leaves, `summary` and `reverse` left out."""
        said = msgspec.to_builtins(self)
        del said["summary"], said["reverse"]
        said |= {"options": sorted(self.options), "words": sorted(self.words), "refuse": sorted(self.refuse)}
        text = msgspec.json.encode([ENGINE, EDITION, EDITION_OF_OPTIONS, said], order="deterministic")
        return hashlib.sha256(text).hexdigest()[:12]

    @property
    def chosen(self) -> frozenset[Option]:
        """The options themselves."""
        return frozenset(OPTIONS[name] for name in self.options)


def policy_of(text: str, name: str, where: str = "") -> Policy:
    """Read a policy. Raises `Misconfigured` that names everything that is wrong with it; `where` is the file's name."""
    where = where or f"policy {name}"
    try:
        said = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Misconfigured("policy-invalid", f"{where} is not TOML: {error}.", fix="Correct the file.") from None
    return _checked(said, {"name": name, "domain": said.get("domain") or name}, where)


def policy_of_builtins(said: object) -> Policy:
    """A policy as `msgspec.to_builtins` gives it, checked as one that is read. Raises `Misconfigured`."""
    name = said.get("name") if isinstance(said, dict) else None
    return _checked(said, {}, f"the published policy {name}" if isinstance(name, str) and name else "the published policy")


def _checked(said: Any, more: Mapping[str, str], where: str) -> Policy:
    """The policy, if nothing is wrong with it. What has the wrong shape hides nothing that is wrong with the rest."""
    problems = list(misfits(said, Policy))
    sound = _sound(said) if problems else said
    policy = msgspec.convert({**sound, **more}, Policy)
    problems += _problems(policy, whole=sound is said or (isinstance(said, dict) and sound.get("options") == said.get("options")))
    if problems:  # each says where: it may be told among those of other files
        raise together([Misconfigured(each.reason, f"{where}: {each.sentence}", fix=each.fix) for each in problems], where)
    return _plain(policy)


def _plain(policy: Policy) -> Policy:
    """The policy with what follows from it written out: the engine, the versions and comparisons know one way to say a thing."""
    kinds = dict(policy.kinds) | dict.fromkeys((each for each in policy.refuse if each in _KINDS), "hold")
    if Option.CLEAN_RECOGNIZABLE_VISUAL_FEATURES in policy.chosen:  # faces that nobody takes out do not leave, as images that no mask fits
        kinds.setdefault(Kind.HEAD_VOLUME, "hold")
    refuse = tuple(dict.fromkeys(uid for each in policy.refuse for uid in by_name().get(each, ())))
    return replace(policy, kinds={str(name): said for name, said in kinds.items()}, refuse=refuse)


def _sound(said: Any) -> dict[str, Any]:
    """What has the right shape, entry by entry."""
    sound = {}
    for key, value in said.items() if isinstance(said, dict) else ():
        if _fits(key, value):
            sound[key] = value
        elif isinstance(value, dict):
            sound[key] = {name: each for name, each in value.items() if _fits(key, {name: each})}
        elif isinstance(value, list):  # of masks the place counts: a right one stands in
            kept = [each if _fits(key, [each]) else {"clean": True} if key == "masks" else None for each in value]
            sound[key] = [each for each in kept if each is not None]
    return {key: value for key, value in sound.items() if _fits(key, value)}


def _fits(key: str, value: Any) -> bool:
    return not list(misfits({key: value}, Policy))


def _wrong(sentence: str, fix: str) -> Misconfigured:
    return Misconfigured("policy-invalid", sentence, fix=fix)


def _problems(policy: Policy, *, whole: bool) -> Iterator[Misconfigured]:
    """What is wrong; unless `whole`, some of the options are not known."""
    for name in policy.options:
        if name not in OPTIONS:
            near = nearest(name, OPTIONS)
            yield _wrong(
                f"options: there is no option {name!r}.", f"Did you mean {near}?" if near else f"Options are: {', '.join(OPTIONS)}."
            )
    options = {OPTIONS[name] for name in policy.options if name in OPTIONS}
    if {Option.RETAIN_FULL_DATES, Option.RETAIN_MODIFIED_DATES} <= options:
        yield _wrong(
            "options: retain-full-dates and retain-modified-dates contradict each other.", "Keep the one that is meant (PS3.15 E.3.6)."
        )
    if policy.private and Option.RETAIN_SAFE_PRIVATE not in options and whole and len(options) == len(set(policy.options)):
        yield _wrong("private: elements are named, and options do not have retain-safe-private.", "Add the option, or take them out.")
    for what, given in (("name", policy.name), ("domain", policy.domain)):
        if not _NAME.fullmatch(given):
            fix = "Write at most 32 letters, digits, dots, underscores and hyphens, a letter or digit first."
            yield _wrong(f"{what}: {given!r} is no name.", fix)
    if policy.character_set and policy.character_set not in python_encoding:
        yield _wrong(f"character_set: {policy.character_set!r} is no term of PS3.3 C.12.1.1.2.", "Write one such as ISO_IR 100.")
    for element in policy.private:
        if not _PRIVATE.fullmatch(element.element):
            yield _wrong(f"private: {element.element!r} is no private element.", "Write an odd group and the place: 0019,xx0C.")
        if element.vr not in _PRIVATE_VRS:
            yield _wrong(f"private: {element.element} cannot be kept as {element.vr!r}.", f"VRs that can: {', '.join(_PRIVATE_VRS)}.")
    seen: dict[tuple[int, ...], str] = {}
    for name, wish in policy.attributes.items():
        try:
            path = path_of(name)
        except Misconfigured as error:
            yield error
            continue
        if path in seen:
            yield _wrong(f"attributes: {seen[path]} and {name} are the same attribute.", "Take one of them out.")
        seen[path] = name
        yield from list(_contradictions(name, path[-1], wish)) or _needed(name, path, wish, policy)
    yield from (_wrong(*wrong) for wrong in wrong_in(policy.kinds))
    yield from _wrong_refusals(policy)
    yield from _wrong_masks(policy)
    yield from _wrong_pixels(policy)
    for word in policy.words:
        if not word.isalnum():
            yield _wrong(f"words: {word!r} is not one word.", "Write words of letters and digits, one each.")


def _wrong_refusals(policy: Policy) -> Iterator[Misconfigured]:
    for each in policy.refuse:
        if each in _KINDS:
            if said_of(Kind(each), policy.kinds) != "hold" and each in policy.kinds:
                yield _wrong(f"refuse: {each} is refused, and kinds say something else of it.", "Take one of them out.")
        elif each not in by_name():
            near = meant(each, _KINDS)
            fix = f"Did you mean {near}?" if near else "Write the UID or name of one that is stored, such as CT Image Storage, or a kind."
            yield _wrong(f"refuse: {each!r} is no SOP class of PS3.6 that is de-identified, and no kind.", fix)


def _needed(name: str, path: tuple[int, ...], wish: Wish, policy: Policy) -> Iterator[Misconfigured]:
    """Of an attribute without which, and without whose own value, there are no objects of a class."""
    refused = {uid for each in policy.refuse for uid in by_name().get(each, ())}
    needing = [uid for uid in classes_that_need(path) if uid not in refused]
    if needing and wish in ("remove", "empty"):
        said = in_words([name_of(uid) for uid in needing])
        yield _wrong(
            f"attributes: {name} cannot be {_DONE[wish]}: it is of type 1 in {said}, and no value says nothing in its place.",
            "Take the line out, or name these SOP classes in refuse, so that none of them leaves.",
        )


def _wrong_masks(policy: Policy) -> Iterator[Misconfigured]:
    for number, mask in enumerate(policy.masks, 1):
        paints = bool(mask.boxes) or mask.outside_regions
        if paints == mask.clean:
            fix = "Write boxes or outside_regions, or clean = true if nothing needs to be painted over."
            yield _wrong(f"masks: the mask number {number} says {'two things' if paints else 'nothing'}.", fix)
        if any(left < 0 or top < 0 or width < 1 or height < 1 for left, top, width, height in mask.boxes):
            yield _wrong(f"masks: a box of the mask number {number} is none.", "Write left, top, width and height in pixels.")
        if paints and "retain-uids" in policy.options:
            fix = "Take the option or the mask out."
            yield _wrong(f"masks: an image painted over by number {number} needs a UID of its own (PS3.3 C.7.6.1.1.2).", fix)
        if mask.sop_class and not is_standard(mask.sop_class):
            yield _wrong(f"masks: {mask.sop_class!r} of number {number} is no SOP class that is de-identified.", "Write one of PS3.4 B.5.")


def _wrong_pixels(policy: Policy) -> Iterator[Misconfigured]:
    option = Option.CLEAN_RECOGNIZABLE_VISUAL_FEATURES.keyword
    if option in policy.options and said_of(Kind.HEAD_VOLUME, policy.kinds) == "pass" and Kind.HEAD_VOLUME in policy.kinds:
        yield _wrong(f"kinds: heads pass, and options have {option}.", "Write deface or hold, or take the option out.")
    if "retain-uids" not in policy.options:
        return
    fix = "Take one of them out: an image with other pixels needs a UID of its own (PS3.3 C.7.6.1.1.2)."
    if policy.text is not None and policy.text.found == "mask":
        yield _wrong("text: found text is painted over, and options have retain-uids.", fix)
    if policy.kinds.get("head-volume", "").strip() == "deface":
        yield _wrong("kinds: heads are defaced, and options have retain-uids.", fix)
    if policy.kinds.get("unused-bits", "").strip() == "clean":
        yield _wrong("kinds: unused bits are cleared, and options have retain-uids.", fix)


_TEXT = ("LO", "LT", "SH", "ST", "UC", "UT")
_NUMBERS = ("AT", "DS", "FD", "FL", "IS", "OD", "OF", "OL", "OV", "OW", "SL", "SS", "SV", "UL", "US", "UV")
#: SOPClassUID, SpecificCharacterSet, and what says that and how an object was de-identified.
_ENGINES_OWN = frozenset({0x00080016, 0x00080005, 0x00120062, 0x00120063, 0x00120064, 0x00280303})
#: Of the group that says how pixels are to be read, what says something else: explanations of windows and tables, and free text.
_MAY_GO = frozenset(
    {0x7FE00001, 0x7FE00002, 0x7FE00003, 0x00281055, 0x00283003, 0x00281199, 0x00280301, 0x00281056, 0x00281050, 0x00281051, 0x00283010}
)


def _contradictions(name: str, tag: int, wish: Wish) -> Iterator[Misconfigured]:
    row, vr = row_of(tag), vr_of(tag)
    assert row is not None
    if tag in _ENGINES_OWN or tag >> 16 == 0x0002 or (tag >> 16 in (0x0028, 0x7FE0) and tag not in _MAY_GO):
        said = "Hilum writes it itself" if tag in _ENGINES_OWN or tag >> 16 == 0x0002 else "without it as it is nobody can read the object"
        yield _wrong(f"attributes: {name} cannot be {_DONE[wish]}: {said}.", "Take the line out.")
        return
    if wish == "replace" and vr in _NUMBERS:
        yield _wrong(f"attributes: {name} is a number, and another one would be taken for a measurement.", "Write remove or empty.")
    if wish == "replace" and vr == "CS" and "D" not in row.basic:
        yield _wrong(f"attributes: {name} is a code, and no other one says nothing.", "Write remove or empty.")
    if wish == "keep" and row.in_table:
        fix = "Retain it by an option that has it, or take the line out."
        yield _wrong(f"attributes: {name} is in Table E.1-1, and keeping it would not be the Basic Profile.", fix)
    if wish == "clean" and (vr not in _TEXT or (row.in_table and "C" not in (row.basic, row.options.get("descriptors")))):
        yield _wrong(f"attributes: {name} ({vr}) cannot be cleaned.", "Write remove, empty or replace.")
    if wish in ("remove", "empty") and (
        row.basic == "U" or tag in (0x00080005, 0x00080016, 0x00080018, 0x0020000D, 0x0020000E, 0x7FE00010)
    ):
        yield _wrong(f"attributes: without {name} the object is none.", "Take the line out: UIDs become others anyway.")
    if wish == "replace" and vr == "SQ":
        yield _wrong(
            f"attributes: {name} is a sequence and has no value to be replaced.", "Write remove or empty, or name attributes in it."
        )


def path_of(name: str) -> tuple[int, ...]:
    """The tags of an attribute's name in a policy. Raises `Misconfigured` if the pinned dictionary does not know one."""
    tags = []
    for part in name.split("/"):
        found = _TAG.fullmatch(part.strip())
        tag = int(found[1] + found[2], 16) if found else tag_for_keyword(part.strip())
        if tag is None or not vr_of(tag):
            near = nearest(part, keyword_dict, cutoff=0.7)
            fix = f"Did you mean {near}?" if near else "Write its keyword of PS3.6, or its tag as (GGGG,EEEE)."
            within = f" of {name!r}" if "/" in name else ""
            raise _wrong(f"attributes: {part.strip()!r}{within} is no attribute of the dictionary.", fix)
        tags.append(tag)
    for part, tag in zip(name.split("/"), tags[:-1], strict=False):
        if vr_of(tag) != "SQ":
            raise _wrong(f"attributes: {part.strip()!r} of {name!r} is no sequence.", "Write sequences before the slash, such as A/B.")
    return tuple(tags)


def private_elements(policy: Policy) -> Mapping[tuple[str, int, int], PrivateElement]:
    """What may stay, by creator, group, and place in the block; nothing without `retain-safe-private`."""
    if Option.RETAIN_SAFE_PRIVATE not in policy.chosen:
        return {}
    found = {}
    for element in (*_safe(), *policy.private):
        parts = _PRIVATE.fullmatch(element.element)
        assert parts is not None
        found[element.creator, int(parts[1], 16), int(parts[2], 16)] = element
    return found


@cache
def _safe() -> tuple[PrivateElement, ...]:
    text = (importlib.resources.files("processors.anonymize.data") / "safe_private.csv").read_text(encoding="utf-8")
    return tuple(msgspec.convert(row, PrivateElement) for row in csv.DictReader(text.splitlines()))


def shipped() -> list[str]:
    """Names of the policies that come with Hilum."""
    folder = importlib.resources.files("processors.anonymize") / "policies"
    return sorted(path.name.removesuffix(".toml") for path in folder.iterdir() if path.name.endswith(".toml"))


def policy(name: str, folder: Path | None = None) -> Policy:
    """The policy `name`: the site's in `folder` if it is there, else the shipped one. Raises `Misconfigured`."""
    own = {path.stem: path for path in sorted(folder.glob("*.toml"))} if folder is not None and folder.is_dir() else {}
    if name in own:
        try:
            return policy_of(own[name].read_text(encoding="utf-8"), name, str(own[name]))
        except (OSError, UnicodeDecodeError):
            raise Misconfigured("policy-unreadable", f"{own[name]} cannot be read.", fix="Make it readable, as UTF-8.") from None
    if name not in shipped():
        near = nearest(name, {*own, *shipped()})
        fix = f"Did you mean {near}?" if near else f"Policies are: {', '.join(sorted({*own, *shipped()}))}."
        raise Misconfigured("policy-unknown", f"There is no policy {name!r}.", fix=fix)
    text = (importlib.resources.files("processors.anonymize") / "policies" / f"{name}.toml").read_text(encoding="utf-8")
    return policy_of(text, name)


def domains(folder: Path | None = None) -> dict[str, str]:
    """The projects of all policies that can be read, by the policies' names: those of the folder, and shipped ones."""
    own = {path.stem for path in folder.glob("*.toml")} if folder is not None and folder.is_dir() else set()
    found = {}
    for name in {*own, *shipped()}:
        with suppress(Misconfigured):
            found[name] = policy(name, folder).domain
    return found
