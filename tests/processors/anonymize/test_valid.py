"""What leaves is a valid object: programs of other makers read it, and a validator finds nothing that it did not find in the original."""

from __future__ import annotations

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest

from processors.anonymize.options import Option
from processors.anonymize.outgoing import outgoing
from processors.anonymize.policy import policy
from tests.processors.anonymize.complete import complete
from tests.processors.anonymize.objects import a_context, a_policy, out_of, part10, read, samples

#: One file for each SOP class among pydicom's, and some encodings.
FILES = [
    "CT_small.dcm",
    "MR_small_implicit.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_RLE.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "examples_ybr_color.dcm",
    "examples_overlay.dcm",
    "image_dfl.dcm",
    "liver_1frame.dcm",
    "reportsi.dcm",
    "rtdose_1frame.dcm",
    "rtplan.dcm",
    "test-SR.dcm",
    "waveform_ecg.dcm",
]
POLICIES = ["basic", "research"]
#: Of other SOP classes, objects that have all that is required, and a policy for each option.
STORAGE = "1.2.840.10008.5.1.4.1.1."
COMPLETE = [
    *(
        STORAGE + suffix
        for suffix in ("1", "1.1", "1.2", "2.1", "4.1", "7.4", "11.1", "12.1", "20", "66.4", "77.1.6", "88.22", "88.67", "128")
    ),
    *(STORAGE + suffix for suffix in ("9.1.2", "77.1.5.1", "79.1", "131", "481.1", "481.3", "481.8", "481.9")),
]
OF_OPTIONS = [STORAGE + suffix for suffix in ("1", "2", "4", "6.1", "7", "66.4", "77.1.6", "88.33", "128", "481.2", "481.3", "481.5")]
#: Native and each compressed family, with a box painted over.
PAINTED = {
    "native": "MR_small.dcm",
    "deflated": "image_dfl.dcm",
    "RLE": "MR_small_RLE.dcm",
    "JPEG-LS": "MR_small_jpeg_ls_lossless.dcm",
    "JPEG 2000": "MR_small_jp2klossless.dcm",
    "JPEG": "JPGExtended.dcm",
    "JPEG in colour": "SC_rgb_jpeg_dcmtk.dcm",
    "several frames": "SC_rgb_rle_2frame.dcm",
    "an ultrasound image": "examples_ybr_color.dcm",
}
MASKS = """
kinds.ultrasound = "mask"
kinds.secondary-capture = "mask"
masks = [{ boxes = [[0, 0, 8, 4]] }]
"""


class Checks:
    """The validator and the reader, in two processes at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _file(self, data: bytes) -> Path:
        path = self._folder / sha256(data).hexdigest()
        path.write_bytes(data)
        return path

    def _errors(self, data: bytes) -> set[str]:
        said = subprocess.run(["dciodvfy", self._file(data)], capture_output=True, check=False).stderr.decode("latin-1").splitlines()
        return {re.sub(r"\d+(\.\d+)+", "UID", line) for line in said if line.startswith("Error")}

    def _is_read(self, data: bytes) -> bool:
        said = subprocess.run(["dcmdump", "-q", "+P", "0012,0062", self._file(data)], capture_output=True, check=False)
        return said.returncode == 0 and not said.stderr and b"YES" in said.stdout

    def new_errors(self, pairs: dict[str, tuple[bytes, bytes]]) -> dict[str, set[str]]:
        """By name, what is wrong with the second of each pair and not with the first."""
        every = {data for pair in pairs.values() for data in pair}
        with ThreadPoolExecutor(2) as pool:
            wrong = dict(zip(every, pool.map(self._errors, every), strict=True))
        return {name: found for name, (before, after) in pairs.items() if (found := wrong[after] - wrong[before])}

    def unread(self, files: dict[str, bytes]) -> list[str]:
        """By name, which a reader stumbles over."""
        with ThreadPoolExecutor(2) as pool:
            return [name for name, is_read in zip(files, pool.map(self._is_read, files.values()), strict=True) if not is_read]


@pytest.fixture
def checks(tmp_path: Path) -> Checks:
    return Checks(tmp_path)


def painted(name: str, *options: str) -> tuple[bytes, bytes]:
    """An original, inflated if need be, since the validator does not inflate, and it painted over."""
    original = samples()[name]
    before = part10(read(original)) if name == PAINTED["deflated"] else original
    return before, b"".join(outgoing(original, a_context(a_policy("clean-pixel-data", *options, more=MASKS))).parts)


@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize("name", POLICIES)
def test_a_validator_finds_no_error_that_the_original_does_not_have(name: str, checks: Checks) -> None:
    originals = {**{file: samples()[file] for file in FILES}, **{uid: complete(uid) for uid in COMPLETE}}

    assert checks.new_errors({of: (each, out_of(each, a_context(name))) for of, each in originals.items()}) == {}


@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize("option", [option.keyword for option in Option if option.column])
def test_a_validator_finds_no_new_error_under_any_option(option: str, checks: Checks) -> None:
    context = a_context(a_policy(option))

    assert checks.new_errors({uid: (complete(uid), out_of(complete(uid), context)) for uid in OF_OPTIONS}) == {}


@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize("name", POLICIES)
def test_a_validator_finds_no_new_error_in_painted_images(name: str, checks: Checks) -> None:
    found = checks.new_errors({kind: painted(file, *policy(name).options) for kind, file in PAINTED.items()})

    assert found == {}


@pytest.mark.peer("dcmdump")
def test_dcmtk_reads_it(checks: Checks) -> None:
    originals = {**{name: samples()[name] for name in FILES}, **{uid: complete(uid) for uid in COMPLETE}}
    files = {f"{name} {by}": out_of(each, a_context(by)) for name, each in originals.items() for by in POLICIES}
    files |= {kind: painted(name)[1] for kind, name in PAINTED.items()}

    assert checks.unread(files) == []
    assert len({read(each).SOPClassUID for each in files.values()}) >= 12


def test_pixel_data_is_what_it_was() -> None:
    for name in FILES:
        before, after = read(samples()[name]), read(out_of(samples()[name], a_context("basic")))

        assert after.get("PixelData") == before.get("PixelData"), name
        assert after.file_meta.TransferSyntaxUID == before.file_meta.TransferSyntaxUID
