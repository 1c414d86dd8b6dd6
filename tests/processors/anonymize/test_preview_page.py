"""What a preview and its page tell a privacy officer: in counts, in words, and by the standard's codes."""

from __future__ import annotations

import re
from typing import Any
from xml.etree.ElementTree import Element, fromstring

import pytest

from processors.anonymize.delivering import Outgoing
from processors.anonymize.offline import Preview, preview_of
from processors.anonymize.page import page
from processors.anonymize.policy import Policy, policy
from processors.anonymize.result import Action
from processors.anonymize.table import standard
from processors.anonymize.wording import NOT_IN_TABLE, Became, became, because, standing, words
from tests.processors.anonymize.objects import KEY, a_policy, an_object, part10
from tests.processors.anonymize.test_pixels import a_region, an_image

ULTRASOUND = '[kinds]\nultrasound = "mask"\n[[masks]]\noutside_regions = true'


def previewed(of: Policy | str = "research", **attributes: Any) -> Preview:
    chosen = policy(of) if isinstance(of, str) else of
    return preview_of("a.dcm", part10(an_object(**attributes)), Outgoing(chosen, KEY))


def action_of(keyword: str, of: Policy | str = "research", **attributes: Any) -> Action:
    (found,) = (each for each in previewed(of, **attributes).actions if each.keyword == keyword)
    return found


def read(found: Preview) -> Element:
    """The page, as elements: it is XML but for its first line and its empty elements."""
    html = page(found).removeprefix("<!doctype html>\n")
    return fromstring(re.sub(r"<(meta|br|input)\b([^>]*)>", r"<\1\2/>", html))  # noqa: S314  # Hilum's own


def text_of(element: Element) -> str:
    return " ".join("".join(element.itertext()).split())


def folds(html: Element) -> dict[str, bool]:
    """What can be folded, by its title, and whether it is open."""
    return {text_of(each[0]).partition(":")[0]: "open" in each.attrib for each in html.iter("details")}


@pytest.mark.parametrize(
    ("keyword", "value", "what", "said"),
    [
        ("InstitutionName", "North", Became.REMOVED, "removed"),
        ("ReferringPhysicianName", "Doe^J", Became.EMPTIED, "emptied"),
        ("PatientID", "P1", Became.REPLACED, "pseudonym"),
        ("StudyInstanceUID", "1.2.3", Became.REPLACED, "new UID"),
        ("StudyDate", "20240229", Became.CHANGED, "moved by days"),
        ("StudyDescription", "CT of Jane", Became.CHANGED, "cleaned"),
        ("StudyTime", "101112", Became.KEPT, "kept: whole days move, and no times"),
        ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.2", Became.KEPT, "kept: a UID of the standard itself"),
        ("KVP", "120", Became.KEPT, "kept"),
        ("ReferringPhysicianName", "", Became.KEPT, "empty already"),
    ],
)
def test_each_element_is_told_in_words(keyword: str, value: str, what: Became, said: str) -> None:
    found = action_of(keyword, **{keyword: value})

    assert (became(found), words(found)) == (what, said)


def test_a_long_text_of_which_a_word_goes_is_not_said_to_be_kept() -> None:
    text = "thorax " * 60

    found = action_of("ImageComments", a_policy("clean-descriptors"), ImageComments="Zaphodson " + text)

    assert (became(found), found.before.endswith("bytes")) == (Became.CHANGED, True)


def test_the_table_is_named_only_of_what_is_in_it() -> None:
    assert standing(action_of("PatientID")) == "Z/D"
    assert standing(action_of("StationName", StationName="CT01")) == "X/Z/D"  # though an option of the policy keeps it
    assert [standing(action_of(keyword)) for keyword in ("SOPClassUID", "Modality")] == [NOT_IN_TABLE] * 2


@pytest.mark.parametrize(
    ("keyword", "value", "why"),
    [
        ("KVP", "120", "Not in Table E.1-1. Its VR decides: codes, numbers, samples and sequences stay if they have the form of DS."),
        ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.2", "Not in Table E.1-1. It names something of the standard itself"),
        ("Manufacturer", "ACME", "Not in Table E.1-1. It is in Hilum's own list of attributes that were judged one by one."),
        ("ImageID", "Jane", "Not in Table E.1-1. Its VR decides: SH may hold anything, and goes"),
        ("PatientName", "Doe^Jane", "A pseudonym takes its place."),
    ],
)
def test_of_what_is_not_in_the_table_it_is_said_why_it_stays_or_goes(keyword: str, value: str, why: str) -> None:
    assert because(action_of(keyword, "basic", **{keyword: value})).startswith(why)


def test_numbers_are_shown_as_numbers() -> None:
    found = action_of("SamplesPerPixel", SamplesPerPixel=1, FrameIncrementPointer=0x00181063)

    assert (found.before, action_of("FrameIncrementPointer", FrameIncrementPointer=0x00181063).before) == ("1", "(0018,1063)")


def test_the_page_begins_with_how_many_elements_go_and_stay() -> None:
    found = previewed(KVP="120")
    html = read(found)

    counts = {text_of(row[1]): int(text_of(row[0])) for row in html.iter("tr") if len(row) == 3 and text_of(row[1]) in set(Became)}
    assert counts == {str(each): sum(became(action) is each for action in found.actions) for each in Became}
    assert sum(counts.values()) == len(found.actions)


def test_what_is_kept_is_folded_and_what_goes_is_open() -> None:
    ds = an_object(KVP="120", InstitutionName="North")
    ds.private_block(0x0009, "ACME", create=True).add_new(1, "LO", "x")

    found = folds(read(preview_of("a", part10(ds), Outgoing(policy("research"), KEY))))

    assert found["Kept"] is False
    assert found["Removed, of private blocks"] is False
    assert [found[each] for each in ("Removed", "Replaced", "Changed")] == [True] * 3


def test_the_codes_of_the_standard_stand_with_their_meaning() -> None:
    html = read(previewed())

    said = {text_of(row[0]): text_of(row[1]) for row in html.iter("tr") if len(row) == 2}
    assert said["X/Z/D"] == "X, unless Z or D is needed for a valid object (type 3, type 2 or type 1)"
    used = {row.basic for row in (*standard().rows.values(), *standard().patterns.values())}
    assert used <= said.keys()
    assert "Actions of PS3.15 2026c Table E.1-1a." in text_of(html)


def test_risky_kinds_and_masks_are_told_with_what_becomes_of_them() -> None:
    image = an_image(Modality="US", SequenceOfUltrasoundRegions=[a_region(2, 1, 9, 6)])

    masked, bare = (preview_of("a", part10(image), Outgoing(of, KEY)) for of in (a_policy(more=ULTRASOUND), policy("basic")))

    assert [(each.said, each.by_policy) for each in masked.risks.kinds if each.kind == "ultrasound"] == [("mask", True)]
    assert masked.risks.masks == "Painted over in every frame: all that is outside of the ultrasound regions."
    assert [(each.said, each.by_policy) for each in bare.risks.kinds if each.kind == "ultrasound"] == [("hold", False)]
    assert "It would be held, and nothing would leave." in text_of(read(bare))
    assert "leaves if a mask is for such images, painted over" in text_of(read(masked))


def test_pixels_that_are_painted_over_are_not_said_to_be_kept() -> None:
    image = an_image(Modality="US", SequenceOfUltrasoundRegions=[a_region(2, 1, 9, 6)])

    found = preview_of("a", part10(image), Outgoing(a_policy(more=ULTRASOUND), KEY))

    (pixels,) = (each for each in found.actions if each.keyword == "PixelData")
    assert became(pixels) is Became.CHANGED
    assert pixels.why.startswith("Painted over in every frame")


def test_the_page_loads_nothing_and_runs_no_script() -> None:
    html = read(previewed(StudyDescription="http://example.org/a.png"))

    assert not [each for each in html.iter() if each.tag in ("script", "link", "iframe", "object", "base", "img")]
    assert not [name for each in html.iter() for name in each.attrib if name.startswith("on") or name in ("src", "href")]
    (rule,) = (each.attrib["content"] for each in html.iter("meta") if "http-equiv" in each.attrib)
    assert rule == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_text_on_its_ground_has_the_contrast_that_the_standard_asks_for() -> None:
    """WCAG 2.2 1.4.6: 7 to 1."""
    style = text_of(next(read(previewed()).iter("style")))
    grounds = [found[1] for found in re.finditer(r"background: #([0-9a-f]{3,6})", style) if found[1] != "000"]

    assert len(grounds) > 5
    assert min(contrast("1a1a1a", ground) for ground in grounds) >= 7


def contrast(first: str, second: str) -> float:
    light, dark = sorted(map(luminance, (first, second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    full = colour if len(colour) == 6 else "".join(each * 2 for each in colour)
    parts = [int(full[n : n + 2], 16) / 255 for n in (0, 2, 4)]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
