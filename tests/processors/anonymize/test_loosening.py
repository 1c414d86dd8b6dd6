"""What another policy lets out beyond the former one is said; what it holds or removes besides is not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from processors.anonymize.loosening import looser
from processors.anonymize.policy import policy_of


def table(text: str) -> dict[str, Any]:
    """A policy as it is published, and read again."""
    found = policy_of(text, "mine")
    published: dict[str, Any] = msgspec.json.decode(msgspec.json.encode({"version": found.version, "policy": found}))
    return published


def options(*names: str) -> str:
    return f"options = [{', '.join(repr(name) for name in names)}]"


def mask(what: str) -> str:
    return f'[[masks]]\nmanufacturer = "ACME"\nrows = 480\n{what}'


BOX = mask("boxes = [[0, 0, 640, 40]]")
PRIVATE = 'options = ["retain-safe-private"]\n[[private]]\ncreator = "ACME"\nelement = "0019,xx0C"\nvr = "DS"'
#: Before, after, and what is said; the other way round nothing is.
LOOSER = [
    ("", options("retain-full-dates"), "full dates will leave (were removed)"),
    ("", options("retain-modified-dates"), "dates, shifted, will leave (were removed)"),
    (options("retain-modified-dates"), options("retain-full-dates"), "full dates will leave (were shifted)"),
    ("", options("retain-uids"), "UIDs of the originals will leave (were replaced)"),
    ("", options("retain-institution-identity"), "names and addresses of institutions will leave (were removed)"),
    ("", options("retain-safe-private"), "private elements of the safe list will leave (were removed)"),
    ("", options("clean-descriptors"), "descriptions will leave, cleaned (were removed)"),
    (options("clean-pixel-data"), "", "images that no mask fits will leave (were held)"),
    ("", '[attributes]\nCommentsOnRadiationDose = "clean"', "CommentsOnRadiationDose will leave (clean; the profile alone had it)"),
    (
        '[attributes]\nSoftwareVersions = "remove"',
        '[attributes]\n"(0018,1020)" = "empty"',
        "(0018,1020) will leave more of itself (empty; was remove)",
    ),
    ('[attributes]\nSoftwareVersions = "remove"', "", "SoftwareVersions will leave as the profile has it (was remove)"),
    (options("retain-safe-private"), PRIVATE, "the private element 0019,xx0C of ACME will leave, as DS (was removed, or another VR)"),
    ("", '[kinds]\nultrasound = "mask"', "objects of the kind ultrasound will leave painted over (were held)"),
    ("", '[kinds]\nultrasound = "pass: ours have no text"', "objects of the kind ultrasound will leave as they are (were held)"),
    ('[kinds]\nsr-text = "clean"', '[kinds]\nsr-text = "pass: none"', "objects of the kind sr-text will leave as they are (were cleaned)"),
    ('[kinds]\nhead-volume = "hold"', "", "objects of the kind head-volume will leave as they are (were held)"),
    (BOX, "", "a mask that paints over images of ACME * x 480 is gone, or another one"),
    ("", mask("clean = true"), "images of ACME * x 480 will leave with nothing painted over, as looked at (clean = true)"),
    ("[text]", "", "text in pixels is not looked for (was)"),
    ("[text]", '[text]\nfound = "mask"', "images in which text is found will leave, painted over (were held)"),
    ("[text]", "[text]\nthreshold = 0.9", "text in pixels must be read with a confidence of 0.9 to be seen (was 0.6)"),
    ("[text]", "[text]\nframes = 2", "text is looked for in 2 frames of an object (was 8)"),
    ("", 'words = ["reha", "graz"]', "cleaned text will keep the words graz, reha"),
    ("", 'character_set = "ISO_IR 100"', "text of objects that name no character set will leave, read as ISO_IR 100 (they were held)"),
    (
        'refuse = ["1.2.840.10008.5.1.4.1.1.2"]',
        "",
        "objects of the SOP class 1.2.840.10008.5.1.4.1.1.2 will leave (were refused)",
    ),
    ("", "reverse = true", "a sealed table will lead back from pseudonyms"),
]


@pytest.mark.parametrize(("before", "after", "says"), LOOSER, ids=[says for _, _, says in LOOSER])
def test_what_leaves_besides_is_said_and_what_does_not_leave_any_more_is_not(before: str, after: str, says: str) -> None:
    assert looser(table(before), table(after)) == [says]
    assert looser(table(after), table(before)) == []


def test_another_project_is_said_both_ways() -> None:
    [said] = looser(table('domain = "heart"'), table('domain = "lung"'))

    assert said.startswith("pseudonyms will be those of the project lung (were of heart)")


def test_the_same_policy_in_another_order_lets_out_nothing_more() -> None:
    one, other = ("retain-uids", "retain-device-identity"), ("retain-device-identity", "retain-uids")

    assert looser(table(options(*one)), table(options(*other))) == []


def test_a_policy_that_cannot_be_read_is_said_to_be_that() -> None:
    newer = table("")
    newer["policy"] = {**newer["policy"], "of_a_later_release": True}

    [said] = looser(newer, table(""))

    assert "cannot be told" in said
