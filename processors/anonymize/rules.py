"""What becomes of each element of an object under a policy: Table E.1-1, its options, the attribute's type in the IOD, and the policy's
own wishes, resolved to one `Decision`.

Nothing here reads a value. Both engines ask here, and so does the preview, so that all three say the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from functools import lru_cache

from msgspec import Struct
from pydicom.datadict import keyword_for_tag

from processors.anonymize.held import HeldReason
from processors.anonymize.known_runs import Runs
from processors.anonymize.needed import has_no_dummy
from processors.anonymize.options import Option
from processors.anonymize.policy import Policy, PrivateElement, Wish, path_of, private_elements
from processors.anonymize.table import Row, row_of, vr_of
from processors.anonymize.types import UNKNOWN, Types, types
from processors.anonymize.vrs import CODED, FREE, TEXTUAL, TIMES, fits


class Act(Enum):
    """What is done with an element."""

    KEEP = auto()  #: as it is: numbers, samples
    CHECK = auto()  #: as it is if its value is one of its VR, else `otherwise`
    REMOVE = auto()
    EMPTY = auto()
    DUMMY = auto()  #: another value that says nothing
    UID = auto()  #: a keyed UID, the same everywhere
    PATIENT_ID = auto()
    PATIENT_NAME = auto()
    ACCESSION = auto()
    TEXT = auto()  #: a keyed text, the same everywhere
    DATE = auto()  #: moved, or kept after a check
    AGE = auto()
    CLEAN = auto()  #: words of the vocabulary only
    DESCEND = auto()  #: a sequence: stays, and what is in it is looked at
    CHARACTER_SET = auto()
    OVERLAY = auto()  #: goes, unless it says that the overlay is in the pixels
    HOLD = auto()  #: no object is made


class Mood(Enum):
    """What a sequence around says about what is in it."""

    USUAL = auto()
    #: It stands for somebody or something: text in it is replaced, codes included.
    REPLACED = auto()
    #: An option keeps it whole: what the table does not name stays as it is.
    KEPT = auto()


class Decision(Struct, frozen=True):
    """What is done with one element, and why."""

    act: Act
    tag: int
    keyword: str
    #: Of the dictionary.
    vr: str
    #: As Table E.1-1 has it, and what it came to here: `X/Z/D: Z`.
    code: str
    why: str
    #: Where a value cannot stay: REMOVE, EMPTY, DUMMY or HOLD.
    otherwise: Act = Act.REMOVE
    #: Of `DESCEND`.
    mood: Mood = Mood.USUAL
    #: Of a private element that stays.
    private: PrivateElement | None = None
    #: Of `HOLD`, here or in `otherwise`.
    reason: HeldReason = HeldReason.VR_UNEXPECTED


#: Elements that the engine writes itself: PatientIdentityRemoved, DeidentificationMethod and its code sequence,
#: LongitudinalTemporalInformationModified.
OWN = frozenset({0x00120062, 0x00120063, 0x00120064, 0x00280303})
BURNED_IN_ANNOTATION, ICC_PROFILE = 0x00280301, 0x00282000
#: Written by who painted over the pixels, and nothing of the original's is in it.
_DERIVATION = 0x00082111
CHARACTER_SET = 0x00080005
PATIENT_NAME, PATIENT_ID, ACCESSION = 0x00100010, 0x00100020, 0x00080050
#: Remembered for each place; an object can have any tags.
_MOST_DECISIONS = 8192
_CONTENT = 0x0040A730
_OVERLAY_BIT_POSITION = 0x0102
#: WaveformData and WaveformPaddingValue: bytes of which their item alone says how many.
_OF_WAVEFORMS = frozenset({0x54001010, 0x5400100A})
#: PixelData, those of floating point, and where their frames are.
_PIXELS = frozenset({0x7FE00001, 0x7FE00002, 0x7FE00003, 0x7FE00008, 0x7FE00009, 0x7FE00010})
#: Types in macros that are used in more places than the types know: codes (PS3.3 8.8-1).
_IN_MACROS = {0x00080100: "1C", 0x00080102: "1C", 0x00080104: "1"}
#: PatientAlternativeCalendar and ResponsiblePersonRole: required where others have a value, which is gone, and not allowed elsewhere.
_OF_ANOTHER = frozenset({0x00100035, 0x00102298})
_IDENTIFIERS = ("ID", "Identifier", "IdentificationNumber")


class Level:
    """A place among the elements of an IOD: the top level, or the items of a sequence at its place."""

    __slots__ = ("_decisions", "_inside", "depth", "explicit", "implicit", "mood", "place", "rules", "trail")

    def __init__(self, rules: Rules, place: int, mood: Mood, trail: tuple[int, ...] | None, depth: int) -> None:
        self.rules = rules
        self.place = place
        self.mood = mood
        self.trail = trail
        #: 0 at the top level, else 1: what is deeper is judged alike.
        self.depth = depth
        self._decisions: dict[tuple[int, str], Decision] = {}
        self._inside: dict[tuple[int, Mood], Level] = {}
        #: For the engine: what it knows of heads of elements that it has met at this place.
        self.explicit: dict[bytes, object] = {}
        self.implicit: dict[bytes, object] = {}

    def decide(self, tag: int, vr: str) -> Decision:
        """Of an element of a standard group; `vr` is what it says of itself, `""` in implicit VR."""
        found = self._decisions.get((tag, vr))
        if found is None:
            found = self.rules.decision(self, tag, vr)
            if len(self._decisions) < _MOST_DECISIONS:
                self._decisions[tag, vr] = found
        return found

    def inside(self, decision: Decision) -> Level:
        """The place in a sequence that stays."""
        key = (decision.tag, decision.mood)
        found = self._inside.get(key)
        if found is None:
            found = self._inside[key] = self.rules.level(self, decision)
        return found


class Rules:
    """A policy for objects of one SOP class. `cleaned` are the options that somebody has carried out on their pixels; `derived` ones have a
    DerivationDescription that says what was done to those.
    """

    def __init__(self, policy: Policy, sop_class_uid: str, cleaned: frozenset[Option] = frozenset(), *, derived: bool = False) -> None:
        self.policy = policy
        self.cleaned = cleaned
        self._derived = derived
        self._written = OWN | {BURNED_IN_ANNOTATION} if Option.CLEAN_PIXEL_DATA in cleaned else OWN
        self.options = policy.chosen
        self._in_order = tuple(option for option in Option if option in self.options)
        #: What cleaned text may keep beside the vocabulary, in lower case.
        self.words = frozenset(word.casefold() for word in policy.words)
        self.private: Mapping[tuple[str, int, int], PrivateElement] = private_elements(policy)
        #: By creators of which something may stay, with their group: the places in their blocks.
        self.creators: dict[tuple[str, int], set[int]] = {}
        for creator, group, place in self.private:
            self.creators.setdefault((creator, group), set()).add(place)
        self.creator_names = frozenset(creator for creator, _ in self.creators)
        self._types: Types = types()
        self._wishes: dict[tuple[int, ...], Wish] = {path_of(name): wish for name, wish in policy.attributes.items()}
        self._deep = tuple(path for path in self._wishes if len(path) > 1)
        self._levels: dict[tuple[int, Mood, tuple[int, ...] | None], Level] = {}
        #: For the engine: runs of elements that it has met, in implicit and in explicit VR.
        self.runs = (Runs(4), Runs(6))
        self.top = Level(self, self._types.classes.get(sop_class_uid, 0), Mood.USUAL, () if self._deep else None, 0)

    def level(self, around: Level, decision: Decision) -> Level:
        """The place in a sequence at a place; equal places are one."""
        trail = None if around.trail is None else (*around.trail, decision.tag)
        if trail is not None and not any(path[: len(trail)] == trail for path in self._deep):
            trail = None
        place = self._types.inside(around.place, decision.tag)
        if place == UNKNOWN and decision.tag == _CONTENT:  # content holds content (PS3.3 C.17.3.2), however deep
            place = self._types.inside(self.top.place, _CONTENT)
        key = (place, decision.mood, trail)
        if key not in self._levels:
            self._levels[key] = Level(self, *key, 1)
        return self._levels[key]

    def decision(self, level: Level, tag: int, vr: str) -> Decision:
        """See `Level.decide`."""
        decided = self._decided(level, tag)
        if vr and decided.vr and not fits(decided.vr, vr) and decided.act not in (Act.REMOVE, Act.EMPTY, Act.DUMMY):
            return Decision(Act.HOLD, tag, decided.keyword, decided.vr, "-", f"It says that it is {vr}; in PS3.6 it is {decided.vr}.")
        return decided

    def _type(self, level: Level, tag: int) -> str:
        kind = self._types.type_of(level.place, tag)
        return _IN_MACROS.get(tag, kind) if kind == "3" else kind

    def _decided(self, level: Level, tag: int) -> Decision:
        group, element = tag >> 16, tag & 0xFFFF
        keyword, vr = keyword_for_tag(tag), vr_of(tag)

        def gone(why: str, code: str = "X") -> Decision:
            return Decision(Act.REMOVE, tag, keyword, vr, code, why)

        if group & 1:
            return gone("A private element, or the creator of its block.")
        if element == 0:
            return gone("A group length, which would not be right any more (PS3.5 7.2).")
        if group < 8 or group == 0xFFFE:
            return gone("It belongs to no data set that is stored.")
        if 0x5000 <= group <= 0x50FF:
            return gone("A curve.")
        if 0x6000 <= group <= 0x60FF and element == _OVERLAY_BIT_POSITION:
            return Decision(Act.OVERLAY, tag, keyword, "US", "X", "It tells whether the overlay is in the pixels.")
        if 0x6000 <= group <= 0x60FF:
            return gone("An overlay plane: drawn or written text cannot be told from the rest.")
        if not vr:
            return gone("The pinned dictionary (PS3.6) does not know it.")
        if tag in OWN or (level.depth == 0 and tag in self._written):
            return gone("It is written anew.")
        if tag == _DERIVATION and level.depth == 0 and self._derived:
            return Decision(Act.KEEP, tag, keyword, vr, "-", "It says what was done to pixels.", Act.REMOVE)
        if tag == CHARACTER_SET:
            return Decision(Act.CHARACTER_SET, tag, keyword, vr, "K", "It says how text is encoded.", Act.HOLD)
        if tag in _PIXELS and level.depth:
            return gone("An icon, or another image beside the object's own.")
        if tag in _OF_WAVEFORMS and self._type(level, tag) == "3":
            return gone("Samples of a waveform where the IOD has none.")
        row = row_of(tag)
        assert row is not None
        return self._wished(level, tag, vr, row) or self._of_row(level, tag, vr, row)

    def _wished(self, level: Level, tag: int, vr: str, row: Row) -> Decision | None:
        """What the policy itself says of it."""
        wish = self._wishes.get((tag,))
        if level.trail is not None:
            wish = self._wishes.get((*level.trail, tag), wish)
        if wish is None:
            return None
        kind = self._type(level, tag)
        if kind == "1C" and tag >> 16 == 0x0028:  # windows and the like: what policies may take of that group goes together
            kind = "3"
        why = f"The policy says so: {wish}."
        if wish in ("remove", "empty") and kind in ("1", "1C") and has_no_dummy(tag):
            why = f"The policy says so ({wish}); it is of type {kind}, without it the object would be invalid, and no value says nothing."
            return Decision(Act.HOLD, tag, row.name, vr, "-", why, reason=HeldReason.POLICY)
        if wish in ("remove", "empty"):  # as far as the object stays one of its class
            return self._resolved(level, tag, vr, row, "X/Z/D" if wish == "remove" else "Z/D", kind, why)
        if wish == "keep":
            return self._kept(level, tag, vr, row, why, kind)
        if wish == "clean":
            return Decision(Act.CLEAN, tag, row.name, vr, "C", why, _without(kind))
        return self._replaced(tag, vr, row, "D", why)

    def _of_row(self, level: Level, tag: int, vr: str, row: Row) -> Decision:
        kind = self._type(level, tag)
        if not row.in_table and row.basic != "X" and level.mood is Mood.KEPT and (vr in FREE or vr in ("AE", "UR")):
            return self._kept(level, tag, vr, row, "An option keeps what it stands in.", kind)
        if not row.in_table and level.mood is Mood.REPLACED and (vr in FREE or vr in ("PN", "UR", "AE")):
            why = "It stands in what the profile replaces."
            return self._resolved(level, tag, vr, row, "X/Z/D", kind, why)
        code, why = self._code(row, vr)
        if code == "K":
            return self._kept(level, tag, vr, row, why, kind)
        if code == "C":
            return self._cleaned(level, tag, vr, row, kind, why)
        if tag == ACCESSION:
            return Decision(Act.ACCESSION, tag, row.name, vr, row.basic, "A pseudonym takes its place.")
        if level.depth == 0 and tag == PATIENT_ID:
            return Decision(Act.PATIENT_ID, tag, row.name, vr, row.basic, "A pseudonym takes its place.")
        if level.depth == 0 and tag == PATIENT_NAME:
            return Decision(Act.PATIENT_NAME, tag, row.name, vr, row.basic, "A pseudonym takes its place.")
        return self._resolved(level, tag, vr, row, code, kind, why)

    def _code(self, row: Row, vr: str) -> tuple[str, str]:
        """The action that holds under the options: of dates the modified ones first, else what keeps before what cleans."""
        said = {option: row.options[option.column] for option in self._in_order if option.column in row.options}
        source = "Table E.1-1" if row.in_table else "Hilum's own list" if row.source == "beyond it" else f"what is done with any {vr}"
        if Option.RETAIN_MODIFIED_DATES in said:
            return "C", f"{Option.RETAIN_MODIFIED_DATES.meaning} ({source})."
        for code in ("K", "C"):
            for option, action in said.items():
                if action == code:
                    return code, f"{option.meaning} ({source})."
        return row.basic, f"Basic Profile ({source})." if row.in_table else f"By {source}."

    def _kept(self, level: Level, tag: int, vr: str, row: Row, why: str, kind: str) -> Decision:
        otherwise = _without(kind)
        if vr == "SQ":
            # What an option keeps is kept whole; any other sequence is a place like the one that it is in.
            mood = Mood.KEPT if row.in_table and row.basic != "X/Z/U*" else level.mood
            return Decision(Act.DESCEND, tag, row.name, vr, "K", why, mood=mood)
        if vr in TIMES or row.name == "TimezoneOffsetFromUTC":
            return Decision(Act.DATE, tag, row.name, vr, "K", why, Act.HOLD)
        if vr == "AS":
            return Decision(Act.AGE, tag, row.name, vr, "K", why, otherwise)
        if vr == "UI" and row.basic == "U":
            return Decision(Act.CHECK, tag, row.name, vr, "K", why, Act.HOLD)
        if vr in CODED and row.basic == "K" and kind != "3":
            return Decision(Act.CHECK, tag, row.name, vr, "K", why, Act.HOLD, reason=HeldReason.VALUE_MALFORMED)
        return Decision(Act.CHECK if vr in TEXTUAL or tag == ICC_PROFILE else Act.KEEP, tag, row.name, vr, "K", why, otherwise)

    def _cleaned(self, level: Level, tag: int, vr: str, row: Row, kind: str, why: str) -> Decision:
        if vr == "SQ":
            return Decision(Act.DESCEND, tag, row.name, vr, "C", why, mood=level.mood)
        if vr in TIMES or row.name == "TimezoneOffsetFromUTC":
            return Decision(Act.DATE, tag, row.name, vr, "C", why, Act.HOLD)
        if vr in FREE:
            return Decision(Act.CLEAN, tag, row.name, vr, "C", why, _otherwise(row.basic, kind))
        # Nothing else can be told clean from unclean (PS3.15 E.3: what cannot be cleaned is removed or replaced).
        code = "X/Z/D" if row.basic in ("C", "K") else row.basic
        return self._resolved(level, tag, vr, row, code, kind, f"{why} It cannot be cleaned.")

    def _resolved(self, level: Level, tag: int, vr: str, row: Row, code: str, kind: str, why: str) -> Decision:
        """A code of Table E.1-1a, compound or not, by the attribute's type (`1`, `1C`, `2`, `2C`, `3`)."""
        if code == "U" or (code == "X/Z/U*" and kind != "3"):
            if vr == "SQ":
                return Decision(Act.DESCEND, tag, row.name, vr, f"{code}: U", f"{why} Type {kind}.", mood=level.mood)
            return Decision(Act.UID, tag, row.name, vr, code, why, Act.HOLD)
        if code == "X/Z/U*":
            return Decision(Act.REMOVE, tag, row.name, vr, f"{code}: X", f"{why} Type {kind}.")
        act = _otherwise(code, kind)
        if (vr == "SQ" or tag in _OF_ANOTHER) and code == "X" and kind == "1C":
            act = Act.REMOVE  # its condition is seldom met where it is removed, and its items may hold anything
        short = {Act.REMOVE: "X", Act.EMPTY: "Z", Act.DUMMY: "D"}[act]
        shown = code if code == short else f"{code}: {short}"
        if short not in code:
            why += f" Removed, it would leave the object invalid: type {kind}."
        elif "/" in code:
            why += f" Type {kind}."
        return self._replaced(tag, vr, row, shown, why) if act is Act.DUMMY else Decision(act, tag, row.name, vr, shown, why)

    @staticmethod
    def _replaced(tag: int, vr: str, row: Row, code: str, why: str) -> Decision:
        if vr == "SQ":
            return Decision(Act.DESCEND, tag, row.name, vr, code, why, mood=Mood.REPLACED)
        if vr == "UI":
            return Decision(Act.UID, tag, row.name, vr, code, why, Act.HOLD)
        if vr in ("LO", "SH", "UC") and row.name.endswith(_IDENTIFIERS):
            return Decision(Act.TEXT, tag, row.name, vr, code, why)
        return Decision(Act.DUMMY, tag, row.name, vr, code, why)

    def of_private(self, creator: str, tag: int) -> Decision | None:
        """Of a private element in the block of `creator`; None if it may not stay."""
        element = self.private.get((creator, tag >> 16, tag & 0xFF))
        if element is None:
            return None
        vr, act = element.vr, Act.CHECK
        why = f"{Option.RETAIN_SAFE_PRIVATE.meaning}: {element.name or 'the policy names it'}."
        if vr in TIMES:
            if not self.options & {Option.RETAIN_FULL_DATES, Option.RETAIN_MODIFIED_DATES}:
                return None
            act = Act.DATE
        elif vr in FREE:
            act = Act.CLEAN
        elif vr == "UI":
            act = Act.CHECK if Option.RETAIN_UIDS in self.options else Act.UID
        return Decision(act, tag, element.name, vr, "C", why, Act.REMOVE if act is Act.CLEAN else Act.HOLD, private=element)


def _without(kind: str) -> Act:
    """What becomes of an attribute of this type if its value cannot stay."""
    return Act.DUMMY if kind in ("1", "1C") else Act.EMPTY if kind in ("2", "2C") else Act.REMOVE


def _otherwise(code: str, kind: str) -> Act:
    """What a code comes to for an attribute of this type, UIDs aside: never less than the code demands, never an invalid object."""
    if code == "D" or kind in ("1", "1C"):
        return Act.DUMMY
    if code in ("Z", "Z/D"):
        return Act.EMPTY
    if code == "X/D":
        return Act.DUMMY if kind in ("2", "2C") else Act.REMOVE
    return Act.EMPTY if kind in ("2", "2C") else Act.REMOVE


@lru_cache(maxsize=256)
def _rules(policy: _Same, sop_class_uid: str, cleaned: frozenset[Option], derived: bool) -> Rules:
    return Rules(policy.policy, sop_class_uid, cleaned, derived=derived)


class _Same:
    """A policy as a key: two of one name and version are one."""

    __slots__ = ("_key", "policy")

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._key = (policy.name, policy.version)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._key == other._key


_same: dict[int, tuple[Policy, _Same]] = {}


def rules_of(policy: Policy, sop_class_uid: str, cleaned: frozenset[Option] = frozenset(), *, derived: bool = False) -> Rules:
    """The rules, made once for each policy, SOP class and way to clean pixels."""
    known = _same.get(id(policy))
    if known is None or known[0] is not policy:
        if len(_same) > 64:
            _same.clear()
        known = _same[id(policy)] = (policy, _Same(policy))
    return _rules(known[1], sop_class_uid, cleaned, derived)
