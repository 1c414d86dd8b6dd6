"""Kinds of objects that may show or tell whose they are in a way that no table of attributes can know: held, unless the policy says
what becomes of them.

What a policy may say of a kind, in its table `kinds`:

- `hold`: none of them leaves. So it is for every kind that the policy does not name, icons and head volumes aside.
- `mask`: they leave if one of the policy's masks fits them, painted over; else they are held. Of images.
- `clean`: they leave as the profile's table and the policy's options have their attributes. Of what is no image; bits that are no part of
  samples are cleared.
- `pass: why`: they leave as they are, and the policy says why that may be. What masks fit is painted over all the same.
- `deface`: of head volumes, see `processors.anonymize.faces`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from enum import StrEnum

from processors.anonymize.about import (
    BURNED_IN,
    CONVERSION_TYPE,
    ICON,
    IMAGE_TYPE,
    MODALITY,
    PHOTOMETRIC,
    REGIONS,
    SAMPLES,
    SERIES_DESCRIPTION,
    SPECIMEN_LABEL,
    About,
)
from processors.anonymize.head_volumes import STORAGE, is_head_volume
from processors.anonymize.held import Held, HeldReason
from processors.anonymize.options import Option
from processors.anonymize.waveforms import has_sound

#: Video in a data set (PS3.5 A.4.5 and following): MPEG-2, MPEG-4, HEVC, and motion JPEG of SMPTE ST 2110.
VIDEO_SYNTAXES = ("1.2.840.10008.1.2.4.10", "1.2.840.10008.1.2.7.")


class Kind(StrEnum):
    """A risky kind; its value is its name in a policy."""

    ULTRASOUND = "ultrasound"
    SECONDARY_CAPTURE = "secondary-capture"
    FLUOROSCOPY = "fluoroscopy"
    SCREEN_SAVE = "screen-save"
    DIGITIZED_FILM = "digitized-film"
    PHOTOGRAPH = "photograph"
    SLIDE_LABEL = "slide-label"
    SLIDE_OVERVIEW = "slide-overview"
    SPECIMEN_LABEL = "specimen-label"
    BURNED_IN = "burned-in"
    RADIOGRAPH = "radiograph"
    VIDEO = "video"
    VOICE = "voice"
    ENCAPSULATED_PDF = "encapsulated-pdf"
    ENCAPSULATED_CDA = "encapsulated-cda"
    ENCAPSULATED_MODEL = "encapsulated-model"
    SURFACE = "surface"
    PRESENTATION_STATE = "presentation-state"
    SR_TEXT = "sr-text"
    RT_LABEL = "rt-label"
    ICON = "icon"
    HEAD_VOLUME = "head-volume"
    UNUSED_BITS = "unused-bits"

    @property
    def meaning(self) -> str:
        """Which objects are of this kind, for the reference and for reasons."""
        return _MEANING[self]

    @property
    def sayable(self) -> tuple[str, ...]:
        """What a policy may say of it."""
        if self in _DOCUMENTS:
            return ("hold",)
        if self is Kind.ICON:
            return ("hold", "clean")
        if self in _TEXTS or self is Kind.UNUSED_BITS:
            return ("hold", "clean", "pass")
        if self in (Kind.VIDEO, Kind.VOICE, Kind.SURFACE):
            return ("hold", "pass")
        if self is Kind.HEAD_VOLUME:
            return ("hold", "pass", "deface")
        return ("hold", "mask", "pass")

    @property
    def unsaid(self) -> str:
        """What becomes of it in a policy that does not name it. Icons are taken out of every object (PS3.15 E.1-1)."""
        return {Kind.ICON: "clean", Kind.HEAD_VOLUME: "pass"}.get(self, "hold")


_MEANING = {
    Kind.ULTRASOUND: "Ultrasound, by SOP class, modality or ultrasound regions: names are written into most of these images.",
    Kind.SECONDARY_CAPTURE: "Secondary capture, by SOP class or ConversionType: anything that was on a screen or a page.",
    Kind.FLUOROSCOPY: "Angiography and fluoroscopy, by SOP class or modality: stored as displayed by many systems.",
    Kind.SCREEN_SAVE: "Screen saves, by ImageType (results, tables, graphs, dose sheets, protocols) or SeriesDescription (dose report, "
    "patient protocol, screen save), and CT, MR, PET, NM and radiographs in colour.",
    Kind.DIGITIZED_FILM: "Digitized films and hardcopies, by SOP class, ConversionType or modality HC: films have names on them.",
    Kind.PHOTOGRAPH: "Photographs and endoscopy (visible light), by SOP class: faces, wrist bands, captions.",
    Kind.SLIDE_LABEL: "Labels of whole slides, by ImageType LABEL.",
    Kind.SLIDE_OVERVIEW: "Overviews of whole slides, by ImageType OVERVIEW: the label is on them.",
    Kind.SPECIMEN_LABEL: "Images with SpecimenLabelInImage YES.",
    Kind.BURNED_IN: "Images that say BurnedInAnnotation YES, or anything else than NO.",
    Kind.RADIOGRAPH: "Radiographs (CR, DX, MG, dental), by SOP class or modality, that do not say BurnedInAnnotation NO: readers and "
    "people at consoles write names and markers into them.",
    Kind.VIDEO: "MPEG and HEVC, whose frames are not decoded here.",
    Kind.VOICE: "Recorded sound, by SOP class, modality AU, or channels of waveforms that say so: a dictation names the patient, and a "
    "voice is somebody's.",
    Kind.ENCAPSULATED_PDF: "Encapsulated PDF.",
    Kind.ENCAPSULATED_CDA: "Encapsulated CDA.",
    Kind.ENCAPSULATED_MODEL: "Encapsulated STL, OBJ and MTL: the surface of a body, faces among them.",
    Kind.SURFACE: "Surface scans and segmentations of surfaces: the shape of a body, faces among them.",
    Kind.PRESENTATION_STATE: "Presentation states: text and drawings over images.",
    Kind.SR_TEXT: "Structured reports and key object notes: their text.",
    Kind.RT_LABEL: "Radiotherapy objects: labels and names that people chose.",
    Kind.ICON: "Objects with an icon image. It is taken out of each, whatever the policy says, so that only `hold` changes anything.",
    Kind.HEAD_VOLUME: "Thin slices (CT, MR, PET, X-Ray 3D; 3 mm or less apart) of heads, or of what BodyPartExamined does not say to have "
    "no face: a face can be made of them.",
    Kind.UNUSED_BITS: "Images in which bits are set that are no part of samples (above HighBit): old systems drew overlays there.",
}
_DOCUMENTS = frozenset({Kind.ENCAPSULATED_PDF, Kind.ENCAPSULATED_CDA, Kind.ENCAPSULATED_MODEL})
_TEXTS = frozenset({Kind.PRESENTATION_STATE, Kind.SR_TEXT, Kind.RT_LABEL})
_BY_CLASS: tuple[tuple[str, Kind], ...] = (
    *((suffix, Kind.ULTRASOUND) for suffix in ("3", "3.1", "6", "6.1", "6.2", "6.3")),
    *((f"7{more}", Kind.SECONDARY_CAPTURE) for more in ("", ".1", ".2", ".3", ".4")),
    *((suffix, Kind.FLUOROSCOPY) for suffix in ("12.1", "12.1.1", "12.2", "12.2.1", "12.3", "12.77")),
    ("104.1", Kind.ENCAPSULATED_PDF),
    ("104.2", Kind.ENCAPSULATED_CDA),
    *((f"104.{number}", Kind.ENCAPSULATED_MODEL) for number in (3, 4, 5)),
    *((suffix, Kind.SURFACE) for suffix in ("66.5", "68.1", "68.2")),
    ("131", Kind.PRESENTATION_STATE),
    *((suffix, Kind.VOICE) for suffix in ("9.4.1", "9.4.2")),
    # Ophthalmic photographs (77.1.5) and whole slides (77.1.6) are looked at by what they say of themselves.
    *((f"77.1.{more}", Kind.PHOTOGRAPH) for more in ("1", "2", "3", "4", "1.1", "2.1", "4.1", "7", "8")),
    *((suffix, Kind.PHOTOGRAPH) for suffix in ("77.1", "77.2")),
)
#: What is printed on film (retired: PS3.4-2006) is stored as it was printed.
_HARDCOPIES = dict.fromkeys(("1.2.840.10008.5.1.1.29", "1.2.840.10008.5.1.1.30"), Kind.DIGITIZED_FILM)
_CLASSES = {STORAGE + suffix: kind for suffix, kind in _BY_CLASS} | _HARDCOPIES
_PREFIXES = (
    (STORAGE + "104.", Kind.ENCAPSULATED_MODEL),
    (STORAGE + "11.", Kind.PRESENTATION_STATE),
    (STORAGE + "9.100.", Kind.PRESENTATION_STATE),
    (STORAGE + "88.", Kind.SR_TEXT),
    (STORAGE + "481.", Kind.RT_LABEL),
    ("1.2.840.10008.5.1.4.34.", Kind.RT_LABEL),
)
_MODALITIES = {
    "US": Kind.ULTRASOUND,
    "IVUS": Kind.ULTRASOUND,
    "XA": Kind.FLUOROSCOPY,
    "RF": Kind.FLUOROSCOPY,
    "HC": Kind.DIGITIZED_FILM,
    "OT": Kind.SECONDARY_CAPTURE,
    "SC": Kind.SECONDARY_CAPTURE,
    "XC": Kind.PHOTOGRAPH,
    "GM": Kind.PHOTOGRAPH,
    "ES": Kind.PHOTOGRAPH,
    "DOC": Kind.SECONDARY_CAPTURE,
}
#: In ImageType, as words: what scanners call pictures of their screens, of protocols, dose and results, which have the name on them.
_SCREENS = re.compile(
    r"(?:^|[ _])(?:REPORTS?|RESULTS?|PROT|PROTOCOL[A-Z]*|DOSE[A-Z]*|SAVED?|CAPTURED?|SUMMARY|SNAPSHOT|HARDCOPY|SCRN|TABLES?|GRAPHS?|"
    r"CHARTS?|PLOTS?|HISTOGRAMS?|MONTAGES?)(?:$|[ _])|SCREEN"
)
#: Likewise series, which scanners name so in any class.
_SERIES_OF_SCREENS = re.compile(
    r"PATIENT(?:EN)?[ _-]?PROTO[CK]OLL?|(?:DOSE|DOSIS)[ _-]?(?:REPORT|INFO|SUMMARY|RECORD|SHEET|PAGE|BERICHT)"
    r"|SCREEN[ _-]?(?:SAVE|SHOT|CAPTURE)|SUMMARY[ _-]PAGE"
)
#: Colour of these is of a screen, or computed and drawn: what they record has none.
_RADIOGRAPHS = frozenset({"CR", "DX", "MG", "IO", "PX", "RG"})
_RADIOGRAPH_CLASSES = frozenset(
    STORAGE + suffix for suffix in ("1", "1.1", "1.1.1", "1.2", "1.2.1", "1.3", "1.3.1", "13.1.3", "13.1.4", "13.1.5")
)
_GREY = frozenset({"CT", "MR", "PT", "NM", *_RADIOGRAPHS})
_GREY_CLASSES = _RADIOGRAPH_CLASSES | {STORAGE + suffix for suffix in ("2", "2.1", "2.2", "4", "4.1", "20", "128", "128.1", "130")}
_CONVERSIONS = {"DF": Kind.DIGITIZED_FILM, "SD": Kind.SECONDARY_CAPTURE, "DRW": Kind.SECONDARY_CAPTURE, "SYN": Kind.SECONDARY_CAPTURE}
_COLOURS = 3


def kinds_of(seen: About) -> Iterator[Kind]:
    """The risky kinds that an object is of, each once, in no order of risk; but for unused bits, which the header does not tell of."""
    yield from dict.fromkeys(_kinds(seen))


def _kinds(seen: About) -> Iterator[Kind]:
    sop_class = seen.source.sop_class_uid
    if sop_class in _CLASSES:
        yield _CLASSES[sop_class]
    yield from (kind for prefix, kind in _PREFIXES if sop_class.startswith(prefix) and sop_class not in _CLASSES)
    if seen.source.transfer_syntax_uid.startswith(VIDEO_SYNTAXES):
        yield Kind.VIDEO
    if ICON in seen.places:
        yield Kind.ICON
    modality = seen.text(MODALITY)
    if modality == "AU" or has_sound(seen):
        yield Kind.VOICE
    if not seen.has_pixels:
        return
    types = seen.values(IMAGE_TYPE)
    if "LABEL" in types:
        yield Kind.SLIDE_LABEL
    if "OVERVIEW" in types or "THUMBNAIL" in types:
        yield Kind.SLIDE_OVERVIEW
    if seen.text(SPECIMEN_LABEL) not in ("", "NO"):
        yield Kind.SPECIMEN_LABEL
    if seen.text(BURNED_IN) not in ("", "NO"):
        yield Kind.BURNED_IN
    if (modality in _RADIOGRAPHS or sop_class in _RADIOGRAPH_CLASSES) and seen.text(BURNED_IN) != "NO":
        yield Kind.RADIOGRAPH
    is_grey = modality in _GREY or sop_class in _GREY_CLASSES
    is_colour = seen.number(SAMPLES) == _COLOURS or seen.text(PHOTOMETRIC) == "PALETTE COLOR"
    is_screen = any(_SCREENS.search(each) for each in types) or _SERIES_OF_SCREENS.search(seen.text(SERIES_DESCRIPTION))
    if is_screen or (is_grey and is_colour):
        yield Kind.SCREEN_SAVE
    conversion = seen.text(CONVERSION_TYPE)
    if conversion:
        # An image that was converted from anything (PS3.3 C.8.6.1): WSD, scanned documents and cameras too.
        yield _CONVERSIONS.get(conversion, Kind.SECONDARY_CAPTURE)
    if modality in _MODALITIES:
        yield _MODALITIES[modality]
    if REGIONS in seen.places:
        yield Kind.ULTRASOUND
    if is_head_volume(seen):
        yield Kind.HEAD_VOLUME


def said_of(kind: Kind, kinds: Mapping[str, str]) -> str:
    """What a policy's `kinds` say of one: the word before the colon."""
    return kinds.get(kind.value, kind.unsaid).partition(":")[0].strip()


def wants(seen: About, kinds: Mapping[str, str]) -> frozenset[str]:
    """What has to be done with an object before it may leave: `mask`, `deface`, or nothing. Raises `Held` for kinds that are held."""
    wanted = set()
    for kind in kinds_of(seen):
        said = said_of(kind, kinds)
        if said in ("mask", "deface"):
            wanted.add(said)
        elif said not in ("pass", "clean"):
            raise held_as(kind)
    return frozenset(wanted)


def held_as(kind: Kind) -> Held:
    """Why an object of a kind does not leave."""
    return Held(HeldReason.RISKY, f"It is of a risky kind, {kind.value}: {kind.meaning}", fix=_fix(kind))


def _fix(kind: Kind) -> str:
    if kind.sayable == ("hold",):
        return "Leave such objects out of what goes to this destination."
    return f"Say in the policy's [kinds] what becomes of {kind.value}: {', '.join(kind.sayable)}; or leave such objects out."


def notes_on(options: Collection[str], kinds: Mapping[str, str]) -> Iterator[str]:
    """What a policy does of which its author may not think, for `hilum deid policies lint`."""
    option = Option.CLEAN_RECOGNIZABLE_VISUAL_FEATURES.keyword
    if option in options and said_of(Kind.HEAD_VOLUME, kinds) == "hold":
        yield f'heads in thin slices are held: options have {option}, and kinds do not say `head-volume = "deface"`.'


def wrong_in(kinds: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What is wrong with a policy's `kinds`: sentence and fix."""
    for name, said in kinds.items():
        if name not in {kind.value for kind in Kind}:
            yield f"kinds: there is no kind {name!r}.", f"Kinds are: {', '.join(Kind)}."
            continue
        kind = Kind(name)
        word, _, why = (part.strip() for part in said.partition(":"))
        if word not in kind.sayable:
            yield f"kinds: {name} cannot be {word!r}.", f"Write one of: {', '.join(kind.sayable)}."
        elif word == "pass" and not why:
            yield f"kinds: {name} passes, and nothing says why.", 'Write the reason after a colon: "pass: no text is burned in here".'
        elif word != "pass" and why:
            yield f"kinds: {name} is {word!r}, which has no reason.", "Take the colon and what follows it out."
