"""Large multi-frame objects, masked and delivered: how long, and how much memory."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import file_digest
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import BinaryIO

import numpy as np
from msgspec.structs import replace
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from bench.report import Report
from hilum.anonymizing import Cleaning
from hilum.dicom.edits import Edits
from hilum.edited import part10_of
from hilum.part10 import data_set_offset
from hilum.testing import MemoryStore, a_delivery
from processors.anonymize.delivering import Outgoing
from processors.anonymize.keys import key_of
from processors.anonymize.outgoing import prepared
from processors.anonymize.policy import policy, policy_of

POLICY = policy_of("[[masks]]\nboxes = [[0, 0, 200, 40]]", "bench")
ROWS, COLUMNS = 1024, 512
#: By name: transfer syntax, and how many frames are as large as 400 MB before they are compressed.
OBJECTS = {
    "native": (ExplicitVRLittleEndian, 400),
    "RLE": (RLELossless, 400),
    "JPEG-LS": (JPEGLSLossless, 400),
    "JPEG 2000": (JPEG2000Lossless, 100),
}
MIB = 2**20


def write(path: Path, name: str) -> None:
    """An object of 16 bits, 12 of them in use: a slope with noise; 20 different frames, again and again."""
    syntax, frames = OBJECTS[name]
    rng = np.random.default_rng(1)
    slope = np.add.outer(np.arange(ROWS), np.arange(COLUMNS))
    some = [(slope + rng.integers(0, 400, slope.shape)).astype("<u2").tobytes() for _ in range(20)]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = (
        CTImageStorage,
        UID("1.2.3"),
        ExplicitVRLittleEndian,
    )
    ds = FileDataset("", Dataset(), b"\0" * 128, meta)
    ds.SOPClassUID, ds.SOPInstanceUID, ds.StudyInstanceUID, ds.Modality = CTImageStorage, "1.2.3", "1.2.4", "CT"
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = ROWS, COLUMNS, 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation, ds.NumberOfFrames = 16, 12, 11, 0, frames
    ds.PixelData = b"".join(some) * (frames // len(some))
    ds["PixelData"].VR = "OW"
    if syntax != ExplicitVRLittleEndian:
        ds.compress(syntax, generate_instance_uid=False)
    ds.save_as(path, enforce_file_format=True)


def anonymous_mib(pid: int | str) -> float:
    """Memory of a process that is not that of a file."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon:")), 0)


@contextmanager
def watched() -> Iterator[list[float]]:
    """The most memory of this process and of its children, MiB."""
    most, done = [0.0, 0.0], threading.Event()

    def watch() -> None:
        children = Path(f"/proc/self/task/{os.getpid()}/children")
        while not done.wait(0.02):
            most[0] = max(most[0], anonymous_mib("self"))
            most[1] = max([most[1], *(anonymous_mib(pid) for pid in children.read_text(encoding="ascii").split())])

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        done.set()
        thread.join()


def measure(path: Path, how: str) -> None:
    """Print size before and after, seconds, and memory beside what the process had before."""
    with path.open("rb") as file:
        data = mmap(file.fileno(), 0, access=ACCESS_READ)
    work = masking(data, path.parent) if how == "masked" else delivery(path, how)
    before = anonymous_mib("self")
    with watched() as most:
        began = time.perf_counter()
        after = work()
        seconds = time.perf_counter() - began
    print(len(data) / MIB, after / MIB, seconds, most[0] - before, most[1])


def masking(data: mmap, folder: Path) -> Callable[[], int]:
    return lambda: len(prepared(data, POLICY, folder=folder).part10)


class OnDisk(MemoryStore):
    """A store of one object, which is not in memory."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    @contextmanager
    def open(self, bucket: str, key: str, offset: int = 0, size_bytes: int | None = None) -> Iterator[BinaryIO]:
        del bucket, key, size_bytes
        with self._path.open("rb") as file:
            file.seek(offset)
            yield file


def delivery(path: Path, how: str) -> Callable[[], int]:
    """What sends an object as a destination asks for it, the second look included, and gives its size."""
    with path.open("rb") as file:
        start = data_set_offset(file.read(MIB))
        file.seek(start)
        digest = file_digest(file, "sha256").hexdigest()
    anonymizer = Outgoing(POLICY if how == "mask" else policy("research"), key_of(bytes(range(1, 33))))
    small = a_delivery(MemoryStore(), SOPInstanceUID="1.2.3", StudyInstanceUID="1.2.4", SeriesInstanceUID="")
    edits = Edits(values={"AccessionNumber": "A1"}, at=datetime(2026, 1, 1, tzinfo=UTC)) if how == "edits" else None
    ref = replace(small.object, size_bytes=path.stat().st_size, sha256=digest)
    original = replace(small, object=ref, edits=edits, series_instance_uid="")
    leaving = replace(
        original,
        study_instance_uid=anonymizer.uid("1.2.4"),
        sop_instance_uid=anonymizer.uid("1.2.3"),
        edits=None,
        cleaning=Cleaning(anonymizer=anonymizer, original=original),
    )
    return lambda: sum(map(len, part10_of(OnDisk(path), leaving).pieces(MIB)))


def measured(path: Path, how: str) -> list[str]:
    command = [sys.executable, "-m", "bench", "masks", "--measure", str(path), "--how", how]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    before, after, seconds, own, child = map(float, said)
    return [f"{before:.0f}", f"{after:.0f}", f"{seconds:.1f}", f"{own:.0f}", f"{child:.0f}"]


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="./dev bench masks", description=__doc__)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--how", default="", help=argparse.SUPPRESS)
    wanted = parser.parse_args(arguments)
    if wanted.measure:
        measure(wanted.measure, wanted.how)
        return
    masked, delivered = [], []
    load = f"{os.getloadavg()[0]:.0f} on {os.cpu_count()} cores"
    for name, (_, frames) in OBJECTS.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "object.dcm")
            write(path, name)
            masked.append([name, frames, *measured(path, "masked")])
            if name == "native":
                delivered = [[how, *measured(path, how)] for how in ("plain", "mask", "edits")]
    report = Report("masks", "Large multi-frame objects, masked and delivered")
    columns = ["MiB before", "MiB after", "s", "MiB of memory", "of the decoder's process"]
    report.table(f"Masked: {ROWS} x {COLUMNS} samples of 16 bits a frame, one box", ["object", "frames", *columns], masked)
    report.table("Delivered, from store to destination: the native one", ["with", *columns], delivered)
    report.say(
        "Memory is what is not of a file, at most, beside what the process had before. Compressed frames are read back and compared. "
        "Delivered: read, checked by its digest, de-identified, looked at a second time, and read as a destination does; plain: by the "
        "policy `research`; mask: by one with a mask; edits: by `research`, with an attribute of its order set in first. "
        f"Load of the machine at the beginning: {load}; "
        "under load times are longer, and what memory is had for a moment is seen sooner."
    )
    report.write()
