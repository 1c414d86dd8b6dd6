"""Heads given to a program of another maker that takes faces away; its output is not trusted, and only its samples are used.

The program gets one object as a file and writes one file. It is run without a shell, in a folder of its own that is deleted, and ended,
with all that it started, if it takes too long.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from mmap import mmap
from pathlib import Path
from typing import BinaryIO

import numpy as np
from msgspec import Struct
from pydicom import dcmread

from hilum.dicom.encoding import Encoding
from hilum.dicom.file_meta import part10_head
from hilum.dicom.lossless import LOSSLESS
from hilum.dicom.recode import CannotRecode, Change, pieces, recoded
from hilum.errors import Misconfigured, TryAgain
from hilum.upper_layer import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from processors.anonymize.about import PIXEL_DATA, About, about
from processors.anonymize.held import Held, HeldReason
from processors.anonymize.pixels import as_derived
from processors.anonymize.pixels.frames import Viewed, decoding, first_changes
from processors.anonymize.pixels.layout import layout_of
from processors.anonymize.pixels.room import kept
from processors.anonymize.pixels.seeing import each_frame
from processors.anonymize.source import read_source

_NATIVE = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
#: Header and padding that an output may have more than its pixels.
_MORE_BYTES = 2**20
_PIECE_BYTES = 2**20
_PREFIX = "hilum-deface-"
#: Where the image is in the patient, and how far its pixels are apart, at any depth (PS3.3 C.7.6.2.1.1, C.7.6.3.1.1).
_GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
_APART = 1e-3  # mm
#: So much of the samples stays in every head that lost its face; noise and other images have less in common with it.
_LEAST_SAME = 0.01


class Defacer(Struct, frozen=True, kw_only=True):
    """The program, from a site's settings, never from a policy."""

    #: A list of arguments in which `{input}` and `{output}` are the two files.
    command: tuple[str, ...]
    timeout_s: float = 300.0

    def __post_init__(self) -> None:
        """Raise `Misconfigured` if it names no program or not both files."""
        words = " ".join(self.command[1:])
        if not self.command or "{input}" not in words or "{output}" not in words:
            raise Misconfigured(
                "defacer-invalid",
                "The defacer's command does not name a program, {input} and {output}.",
                fix='Write it as a list, such as ["/opt/deface", "{input}", "{output}"].',
            )


def _not(sentence: str) -> Held:
    return Held(HeldReason.DEFACE, sentence, fix="Correct the defacer's command, or have the policy hold head volumes.")


def defaced(original: bytes | mmap, seen: About, defacer: Defacer | None, folder: Path | None) -> bytes | mmap:
    """The object with the samples that the program made of it, uncompressed. Raises `Held` if they are none, and `TryAgain` if there is
    no room for the files.
    """
    if defacer is None:
        raise _not("The policy wants heads defaced, and no program is set for it.")
    output = _output_of(original, seen, defacer, folder)
    made = _about_output(output)
    if layout_of(made) != layout_of(seen) or made.source.sop_class_uid != seen.source.sop_class_uid:
        raise _not("The defacer wrote an image of another kind or size.")
    if made.source.transfer_syntax_uid not in _NATIVE:
        raise _not("The defacer compressed its image.")
    if not _is_in_place(original, output):
        raise _not("The defacer wrote another object, or moved or turned the image.")
    layout = layout_of(seen)
    start, stop, _ = made.places[PIXEL_DATA]
    size = layout.frame_bytes * layout.frames
    if stop - start != size + size % 2:
        raise _not("The defacer wrote another number of samples.")
    samples = memoryview(made.source.data)[start : start + size]
    same = decoding(lambda: _share_that_stays(seen, samples))
    if same == 1:
        raise _not("The defacer changed nothing.")
    if same < _LEAST_SAME:
        raise _not("The defacer changed every sample, not those of a face.")
    return _with(seen, samples, layout.bits_allocated, folder)


def _about_output(output: bytes | mmap) -> About:
    """What the program wrote. Raises `Held` if it is no image."""
    try:
        made = about(read_source(output))
        layout_of(made)
    except Held:
        raise _not("The defacer wrote something else than an image.") from None
    return made


def _output_of(original: bytes | mmap, seen: About, defacer: Defacer, folder: Path | None) -> bytes | mmap:
    """What the program writes, in a file that nobody else has: it may have started what outlives it."""
    layout = layout_of(seen)
    most = layout.frame_bytes * layout.frames + (len(original) if len(original) > _MORE_BYTES else _MORE_BYTES)
    try:
        with _own_folder(Path(folder or tempfile.gettempdir())) as own:
            before, after = own / "input.dcm", own / "output.dcm"
            before.write_bytes(memoryview(original))
            _run(defacer, before, after, own)
            if not after.is_file() or after.is_symlink() or not 0 < after.stat().st_size <= most:
                raise _not("The defacer wrote no file, or one of a size that cannot be.")
            with after.open("rb") as file:
                return kept(_pieces_of(file, most), folder)
    except OSError as error:
        raise TryAgain(f"The files for the defacer cannot be kept ({error.strerror}).", fix="Make room where they are kept.") from None


@contextmanager
def _own_folder(within: Path) -> Iterator[Path]:
    """A folder that is deleted at the end. Those that processes left which were killed are deleted first: an original is in them."""
    for left in within.glob(f"{_PREFIX}*"):
        with suppress(OSError), _locked(left):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=within, prefix=_PREFIX, ignore_cleanup_errors=True) as name, _locked(Path(name)):
        yield Path(name)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder as long as this process lives. Raises `OSError` if another one does."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _pieces_of(file: BinaryIO, most: int) -> Iterator[bytes]:
    while most > 0 and (piece := file.read(min(most, _PIECE_BYTES))):
        most -= len(piece)
        yield piece


def _is_in_place(original: bytes | mmap, output: bytes | mmap) -> bool:
    """Whether both say that they are the same object, at the same place in the patient. Raises `Held` if one cannot be read."""
    (before, was), (after, now) = _place_of(original), _place_of(output)
    return before == after and len(was) == len(now) and bool(np.allclose(was, now, rtol=0, atol=_APART))


def _place_of(part10: bytes | mmap) -> tuple[str, list[float]]:
    try:
        ds = dcmread(Viewed(memoryview(part10)), stop_before_pixels=True)
        found = [float(each) for element in ds.iterall() if element.keyword in _GEOMETRY for each in element.value or ()]
        return str(ds.SOPInstanceUID), found
    except Exception:  # whatever pydicom makes of it; its text may hold values
        raise _not("Where the image is in the patient cannot be read.") from None


def _share_that_stays(seen: About, samples: memoryview) -> float:
    """How much of an object is equal in what was made of it, of 1. Raises `CannotRecode`, and `Held` if it cannot be decoded."""
    layout, frames = each_frame(seen, range(seen.frames))
    big, little = (np.dtype(f"{order}u{layout.bits_allocated // 8}") for order in "><")
    at, same = 0, 0
    for frame in frames:
        old = np.frombuffer(frame, big if layout.big_endian else little)
        same += int((old == np.frombuffer(samples[at : at + len(frame)], little)).sum())
        at += len(frame)
    return same / max(1, at // little.itemsize)


def _with(seen: About, samples: memoryview, bits: int, folder: Path | None) -> bytes | mmap:
    source = seen.source
    compressed = source.transfer_syntax_uid in LOSSLESS
    try:
        changes = {
            **(decoding(lambda: first_changes(seen)) if compressed else {}),
            **as_derived(seen, "Face taken away for de-identification, by a program of the site."),
            PIXEL_DATA: Change(b"OW" if bits > 8 else b"OB", from_elsewhere_bytes=len(samples)),
        }
        data = memoryview(source.data)[source.start :]
        parts = recoded(data, Encoding(">" if source.big_endian else "<", source.explicit), explicit=True, changes=changes)
    except CannotRecode:
        raise _not("Its samples cannot be put into the object.") from None
    head = part10_head(source.sop_class_uid, "", EXPLICIT_VR_LITTLE_ENDIAN)
    return kept(pieces([head, *parts], _PIECE_BYTES, iter([samples])), folder)


def _run(defacer: Defacer, before: Path, after: Path, folder: Path) -> None:
    command = [word.replace("{input}", str(before)).replace("{output}", str(after)) for word in defacer.command]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # it may say what nobody should read
            stderr=subprocess.DEVNULL,
            cwd=folder,
            # Of what Hilum is started with, which may be passwords, it needs nothing.
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder), "TMPDIR": str(folder), "LANG": "C.UTF-8"},
            start_new_session=True,
        )
    except OSError:
        raise _not("The defacer's program cannot be started.") from None
    try:
        code = process.wait(defacer.timeout_s)
    except subprocess.TimeoutExpired:
        raise _not(f"The defacer did not end within {defacer.timeout_s:g} s.") from None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if code:
        raise _not(f"The defacer ended with exit status {code}.")
