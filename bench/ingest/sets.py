"""The sets of objects that are sent: CT, small objects, CR, and one large multi-frame object; made-up patients."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydicom.uid import ComputedRadiographyImageStorage, EnhancedCTImageStorage

from hilum.synthetic import ct_study, write_ct_study

_PIXEL_DATA = struct.Struct("<HH2s2xI")


@dataclass(frozen=True)
class ObjectSet:
    """One set, as files in a folder."""

    name: str
    title: str
    make: Callable[[Path, int], list[Path]]
    count: int

    def write(self, folder: Path, part: float = 1.0) -> list[Path]:
        """Write the set into `folder`, or this `part` of it; its files in order."""
        folder.mkdir(parents=True)
        return self.make(folder, max(1, round(self.count * part)))


def write_cr(folder: Path, count: int) -> list[Path]:
    """CR images of 2,500 x 2,048 pixels, 10 MB each."""
    paths = []
    for number, ds in enumerate(ct_study(count, rows=2500, columns=2048, patient="SYNTH0003")):
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = ComputedRadiographyImageStorage
        ds.Modality = "CR"
        path = folder / f"{number:05d}.dcm"
        ds.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def write_multi_frame(path: Path, size_bytes: int) -> Path:
    """One object with as many frames of 512 x 512 pixels as fill about `size_bytes` (under 4 GB); its pixels are never in memory."""
    [ds] = ct_study(1, patient="SYNTH0004")
    frame = bytes(ds.PixelData)
    frames = max(1, size_bytes // len(frame))
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = EnhancedCTImageStorage
    ds.NumberOfFrames = frames
    del ds.PixelData  # the last element of the data set: it is written behind the others
    ds.save_as(path, enforce_file_format=True)
    with path.open("ab") as file:
        file.write(_PIXEL_DATA.pack(0x7FE0, 0x0010, b"OW", frames * len(frame)))
        for _ in range(frames):
            file.write(frame)
    return path


SETS = {
    each.name: each
    for each in (
        ObjectSet("ct", "CT of 528 kB", lambda folder, count: write_ct_study(folder, count), 300),
        # Four times what Hilum's spare files hold, with nobody who publishes: most of it is written into new files.
        ObjectSet("long", "CT of 528 kB at a stretch", lambda folder, count: write_ct_study(folder, count), 1000),
        ObjectSet("small", "objects of 12 kB", lambda folder, count: write_ct_study(folder, count, rows=64, columns=64), 2000),
        ObjectSet("cr", "CR of 10 MB", write_cr, 50),
        ObjectSet("multiframe", "MB of one multi-frame object", lambda folder, mb: [write_multi_frame(folder / "0.dcm", mb * 10**6)], 400),
    )
}
