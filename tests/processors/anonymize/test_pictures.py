"""Pictures of a preview: before and after, with what is painted over; and how a mask begins."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import JPEG2000Lossless, RLELossless

from hilum.errors import Misconfigured
from processors.anonymize.offline import Outcome, Preview
from processors.anonymize.page import page
from processors.anonymize.pictures import Pictures, pictures
from processors.anonymize.pixels.beginning import mask_for
from processors.anonymize.policy import policy_of
from processors.anonymize.result import Action
from processors.anonymize.risks import KindSaid, Risks
from tests.processors.anonymize.objects import a_policy, an_object, part10
from tests.processors.anonymize.test_pixels import a_region, an_image, compressed

MASK = "[[masks]]\nboxes = [[2, 1, 4, 3]]"
ULTRASOUND = '[kinds]\nultrasound = "mask"\n[[masks]]\noutside_regions = true'


def shown(png: bytes) -> Any:
    return np.asarray(Image.open(BytesIO(png)))


def seen(original: bytes, more: str = "", frame: int = 1) -> Pictures:
    found = pictures(original, a_policy(more=more), frame=frame)
    assert found is not None
    return found


def a_preview(path: str = "a.dcm", **more: Any) -> Preview:
    return Preview(**{"path": path, "policy": "basic", "version": "1", "actions": [], **more})


@pytest.mark.parametrize("syntax", [None, RLELossless, JPEG2000Lossless])
@pytest.mark.parametrize("number", [1, 3])
def test_a_frame_is_shown_before_and_after(syntax: Any, number: int) -> None:
    ds = an_image(48, 48, frames=3)
    ramp = np.linspace(0, 255, 48 * 48).astype(np.uint8).tobytes()
    ds.PixelData = bytes(48 * 48) + ramp + ramp[::-1]

    found = seen(part10(ds) if syntax is None else compressed(ds, syntax), MASK, number)

    before, after = shown(found.before), shown(found.after)
    where = np.zeros((48, 48), bool)
    where[1:4, 2:6] = True
    assert np.array_equal(before[~where], after[~where])
    assert not after[where].any()
    assert before[where].any() == (number == 3)
    assert "Painted over in every frame" in found.after_says
    assert (found.frame, found.frames, found.boxes) == (number, 3, ((2, 1, 6, 4),))


def test_what_is_held_is_shown_before_and_nothing_is_after() -> None:
    found = seen(part10(an_image(Modality="US")))

    assert found.before
    assert found.after == b""
    assert "risky kind" in found.after_says


def test_pixels_that_cannot_be_decoded_are_told_of() -> None:
    ds = an_image()
    ds.PixelData = ds.PixelData[:-2]

    found = seen(part10(ds))

    assert (found.before, found.after) == (b"", b"")
    assert "cannot be shown" in found.before_says


def test_pixels_without_a_pair_are_told_of() -> None:
    ds = an_image(8, 11, samples_=3, PhotometricInterpretation="YBR_FULL_422")
    ds.PixelData = bytes(8 * 11 * 2)

    assert "without a pair" in seen(part10(ds)).before_says


def test_samples_are_seen_in_a_window_of_their_own_and_before_and_after_in_the_same() -> None:
    ds = an_image(64, 64, bits=16)
    ds.PixelData = np.linspace(1000, 1200, 4096).astype("<u2").tobytes()

    found = seen(part10(ds), MASK)

    before, after = shown(found.before), shown(found.after)
    assert (before.min(), before.max()) == (0, 255)
    assert np.array_equal(before[8:], after[8:])


def test_what_is_white_at_zero_is_shown_so() -> None:
    ds = an_image(PhotometricInterpretation="MONOCHROME1")
    ds.PixelData = bytes(48) + b"\xff" * 48

    before = shown(seen(part10(ds)).before)

    assert (before[0, 0], before[-1, -1]) == (255, 0)


def test_colour_in_luminance_and_chrominance_is_shown_as_it_looks() -> None:
    ds = an_image(samples_=3, PhotometricInterpretation="YBR_FULL_422")
    ds.PixelData = bytes([76, 76, 85, 255]) * 48

    red = shown(seen(part10(ds)).before)

    assert red.shape == (8, 12, 3)


def test_large_images_are_made_smaller() -> None:
    picture = shown(seen(part10(an_image(1000, 2000))).before)

    assert picture.shape == (400, 800)


def test_an_object_without_image_has_no_pictures_and_no_mask() -> None:
    file = part10(an_object())

    assert pictures(file, a_policy()) is None
    assert mask_for(file) == ""


def test_a_frame_that_is_not_there_is_refused() -> None:
    with pytest.raises(Misconfigured, match="the object has 1"):
        seen(part10(an_image()), frame=2)


def test_the_page_draws_masks_regions_and_found_text() -> None:
    found = seen(part10(an_image(Modality="US", SequenceOfUltrasoundRegions=[a_region(2, 1, 9, 6)])), ULTRASOUND)

    html = page(a_preview(), found)

    assert html.count("data:image/png;base64,") == 2
    assert 'class="mask" d="M0 0H12V8H0Z M2 1H10V7H2Z"' in html
    assert 'class="region" d="M2 1H10V7H2Z"' in html


def test_nothing_of_an_object_is_markup() -> None:
    evil = "</td><script>alert(1)</script>&\"'"
    action = Action(path=evil, keyword=evil, vr=evil, code=evil, act=evil, why=evil, before=evil, after=evil, changed=True)
    held = Outcome(path=evil, state="held", reason=evil, says=evil, fix=evil)
    found = Pictures(rows=1, columns=1, frame=1, frames=1, before_says=evil, after_says=evil)
    kind = KindSaid(kind=evil, meaning=evil, said=evil, becomes=evil, by_policy=True)

    html = page(a_preview(path=evil, actions=[action], held=held, mask=evil, risks=Risks(kinds=[kind], masks=evil)), found)

    assert "<script" not in html
    assert html.count("&lt;script&gt;") == 17


def test_a_mask_begins_with_the_device_and_fits_its_image() -> None:
    file = part10(
        an_image(
            Modality="US",
            Manufacturer='A"C [E9]*',
            ManufacturerModelName="Fünf",
            SoftwareVersions="4.1",
            SequenceOfUltrasoundRegions=[a_region(2, 1, 9, 6)],
        )
    )
    lines = mask_for(file)

    found = seen(file, f'[kinds]\nultrasound = "mask"\n{lines}')

    assert (found.outside, found.regions) == (True, ((2, 1, 10, 7),))
    assert found.after != found.before


def test_a_mask_without_boxes_is_refused_until_somebody_wrote_them() -> None:
    with pytest.raises(Misconfigured, match="says nothing"):
        policy_of(mask_for(part10(an_image())), "mine")
