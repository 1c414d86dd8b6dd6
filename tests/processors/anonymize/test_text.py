"""Text in pixels: a second sign that holds or paints over, and never releases."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless

from processors.anonymize.about import about
from processors.anonymize.held import Held
from processors.anonymize.outgoing import outgoing, prepared
from processors.anonymize.pixels.layout import layout_of
from processors.anonymize.pixels.seeing import seen_as
from processors.anonymize.source import read_source
from processors.anonymize.text.looking import _spread
from tests.processors.anonymize.objects import a_context, a_policy, part10, read
from tests.processors.anonymize.test_pixels import an_image, compressed, pixels_of

pytest.importorskip("rapidocr", reason="the extra ocr is not installed")

from PIL import Image, ImageDraw, ImageFont

from processors.anonymize.text import boxes


def written(rows: int = 200, columns: int = 256) -> Any:
    """Text that is white on grey, 8 bits."""
    image = Image.new("L", (columns, rows), 60)
    ImageDraw.Draw(image).text((20, 30), "DOE^JANE 1950", fill=255, font=ImageFont.load_default(size=24))
    return np.asarray(image)


def an_object_with_text(frames: int = 1, **more: Any) -> Any:
    image = written()
    plain = np.full_like(image, 60)
    pixels = b"".join((image if n == frames - 1 else plain).tobytes() for n in range(frames))
    ds = an_image(*image.shape, frames=frames, PixelData=pixels, **more)
    ds["PixelData"].VR = "OB"
    return ds


HOLD, MASK = '[text]\nfound = "hold"', '[text]\nfound = "mask"'


OFFLINE = """
import sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise OSError("there is no network")
sys.addaudithook(refuse)
import numpy
from PIL import Image, ImageDraw, ImageFont
from processors.anonymize.text import boxes
image = Image.new("L", (256, 200), 60)
print(len(boxes(numpy.asarray(image), 0.6)))
ImageDraw.Draw(image).text((20, 30), "DOE^JANE 1950", fill=255, font=ImageFont.load_default(size=24))
print(len(boxes(numpy.asarray(image), 0.6)) > 0)
"""


def test_the_model_comes_with_the_package_and_asks_no_network() -> None:
    done = subprocess.run([sys.executable, "-c", OFFLINE], capture_output=True, text=True, timeout=120, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "0\nTrue\n", "")


WITHOUT = """
import sys
from pathlib import Path
sys.modules["rapidocr"] = None
from typer.testing import CliRunner
from hilum.anonymizing import anonymizer_of, policy_problems
from hilum.cli import app
from hilum.deid_sections import Deid
from hilum.errors import Misconfigured
from hilum.settings import Settings
folder = sys.argv[1]
deid = Deid(key_path=f"{folder}/key", policies=folder)
settings = Settings(destinations={"a": {"type": "folder", "path": folder, "policy": "looks"}}, deid=deid)
try:
    anonymizer_of("a", "looks", settings)
except Misconfigured as error:
    print(error)
print(*policy_problems(settings))
lint = CliRunner().invoke(app, ["deid", "policies", "lint", "--config", f"{folder}/hilum.toml"])
print(lint.exit_code, lint.stdout)
"""


def test_without_the_extra_a_policy_that_looks_for_text_is_not_begun_with(tmp_path: Path) -> None:
    (tmp_path / "looks.toml").write_text(HOLD)
    (tmp_path / "hilum.toml").write_text(f'[deid]\npolicies = "{tmp_path}"\n')
    (tmp_path / "key").write_text("".join(f"{n:02x}" for n in range(32)))
    (tmp_path / "key").chmod(0o600)

    done = subprocess.run([sys.executable, "-c", WITHOUT, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False)

    assert done.stderr == ""
    assert done.stdout.count('pip install "hilum[ocr]"') == 3
    assert "\n1 " in done.stdout


def test_text_is_found_where_it_is() -> None:
    image = written()
    where = np.zeros(image.shape, bool)
    for left, top, right, bottom in boxes(image, 0.6):
        where[top:bottom, left:right] = True

    assert where[image > 150].mean() > 0.95
    assert where.mean() < 0.4


def test_nothing_is_found_in_an_even_image() -> None:
    assert boxes(np.full((64, 64), 40, np.uint8), 0.6) == ()


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEG2000Lossless])
def test_an_image_with_text_is_held(syntax: Any) -> None:
    ds = an_object_with_text()
    file = part10(ds) if syntax == ExplicitVRLittleEndian else compressed(ds, syntax)

    with pytest.raises(Held) as held:
        prepared(file, a_policy(more=HOLD))
    assert held.value.reason == "text-in-pixels"


def test_text_is_painted_over_in_every_frame_and_the_object_does_not_say_that_it_was_cleaned() -> None:
    done = read(b"".join(outgoing(part10(an_object_with_text(frames=3)), a_context(a_policy(more=MASK))).parts))

    assert (done.pixel_array > 150).mean() < 0.005
    assert "BurnedInAnnotation" not in done
    assert "Pixels painted over" in done.DerivationDescription
    assert [item.CodeValue for item in done.DeidentificationMethodCodeSequence] == ["113100"]


def test_no_text_found_releases_nothing() -> None:
    plain = an_image(64, 64, PixelData=bytes([60]) * 4096)
    plain.Modality = "US"
    with pytest.raises(Held) as risky:
        prepared(part10(plain), a_policy(more=MASK))
    with pytest.raises(Held) as unmasked:
        prepared(part10(an_image(64, 64, PixelData=bytes([60]) * 4096)), a_policy("clean-pixel-data", more=MASK))

    assert (risky.value.reason, unmasked.value.reason) == ("risky-kind", "no-mask")


def test_what_a_mask_covers_is_not_found() -> None:
    of = a_policy(more=f"{HOLD}\n[[masks]]\nboxes = [[0, 0, 256, 200]]")

    ready = prepared(part10(an_object_with_text()), of)

    assert ready.cleaned
    assert not pixels_of(ready.part10).any()


def test_a_blob_is_no_text() -> None:
    y, x = np.mgrid[-1:1:128j, -1:1:128j]
    body = np.where(x**2 / 0.7 + y**2 / 0.3 < 1, 120, 5).astype(np.uint8)

    assert boxes(body, 0.6) == ()


def test_frames_are_spread() -> None:
    assert _spread(3, 8) == {0, 1, 2}
    assert _spread(100, 3) == {0, 49, 99}
    assert _spread(100, 1) == {0}


def test_text_above_the_range_of_an_image_is_white_for_the_model() -> None:
    samples = np.linspace(0, 1000, 4096).astype("<u2").reshape(64, 64)
    samples[10, 10] = 65535
    layout = layout_of(about(read_source(part10(an_image(64, 64, bits=16)))))

    image = seen_as(samples.tobytes(), layout)

    assert image[10, 10] == 255
    assert image[32, 32] > 100
