"""Every sample of pydicom's through the senders of other makers: as they put it on the wire it is kept, and nothing of the file is lost."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import DataElement, Dataset, dcmread

from bench.peers import ENVIRONMENT, dcmsend, orthanc
from bench.wire import recorder
from hilum.spool import read_arrival
from hilum.testing import eventually
from tests.ingest.dicom.running import running
from tests.peers import free_port
from tests.system.test_samples import samples

#: storescu's options to propose a transfer syntax; without one it proposes what is not compressed.
PROPOSE = {
    "1.2.840.10008.1.2": "-xi",
    "1.2.840.10008.1.2.1": "-xe",
    "1.2.840.10008.1.2.2": "-xb",
    "1.2.840.10008.1.2.1.99": "-xd",
    "1.2.840.10008.1.2.4.50": "-xy",
    "1.2.840.10008.1.2.4.51": "-xx",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.81": "-xu",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw",
    "1.2.840.10008.1.2.5": "-xr",
}
Send = Callable[[Sequence[Path], int, Path], None]


def by_storescu(paths: Sequence[Path], port: int, _: Path) -> None:
    for path in paths:
        syntax = dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID
        command = ["storescu", "-aec", "HILUM", *([PROPOSE[syntax]] if syntax in PROPOSE else []), "127.0.0.1", str(port), str(path)]
        subprocess.run(command, env=ENVIRONMENT, capture_output=True, check=False, timeout=60)


def by_dcmsend(paths: Sequence[Path], port: int, _: Path) -> None:
    dcmsend(paths, port, "HILUM")


def by_pynetdicom(paths: Sequence[Path], port: int, folder: Path) -> None:
    for n in range(0, len(paths), 20):  # each run proposes what its files need, of which an association takes 128
        command = [sys.executable, "-m", "pynetdicom", "storescu", "127.0.0.1", str(port), *map(str, paths[n : n + 20])]
        subprocess.run([*command, "-cx", "-aec", "HILUM"], capture_output=True, check=False, timeout=60, cwd=folder)


def by_orthanc(paths: Sequence[Path], port: int, folder: Path) -> None:
    """Orthanc forwards each instance as it has it."""
    http = free_port()
    taken = 0
    with orthanc(folder / "orthanc", free_port(), http, port):
        for path in paths:
            request = urllib.request.Request(f"http://127.0.0.1:{http}/instances", path.read_bytes(), method="POST")  # loopback
            try:
                with urllib.request.urlopen(request, timeout=60):  # noqa: S310  # loopback
                    taken += 1
            except OSError:  # Orthanc takes no such file
                continue
        eventually(lambda: jobs_are_done(http), 120, what="Orthanc has forwarded all")


def jobs_are_done(http: int) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{http}/jobs?expand", timeout=10) as answer:  # loopback
        return b'"Running"' not in (said := answer.read()) and b'"Pending"' not in said


def different(kept: Dataset, file: Dataset) -> list[str]:
    """Tags of elements that are not the same in both. Group lengths and trailing padding are an encoding's, not the object's."""
    tags = {element.tag for ds in (kept, file) for element in ds if element.tag.element != 0 and element.tag != 0xFFFCFFFC}
    return [str(tag) for tag in sorted(tags) if tag not in kept or tag not in file or not same(kept[tag], file[tag])]


def same(one: DataElement, other: DataElement) -> bool:
    if one.VR == other.VR == "SQ":
        return len(one.value) == len(other.value) and not any(different(a, b) for a, b in zip(one.value, other.value, strict=True))
    return bool(one.value == other.value)


@pytest.mark.peer("storescu", "dcmsend", "Orthanc")
@pytest.mark.parametrize("send", [by_storescu, by_dcmsend, by_pynetdicom, by_orthanc])
def test_what_others_send_is_kept_as_it_was_on_the_wire_and_is_what_was_in_the_file(tmp_path: Path, send: Send) -> None:
    paths = samples()[0]
    with running(tmp_path / "hilum") as receiver, recorder(receiver.receiver.port) as proxy:
        send(paths, proxy.port, tmp_path)
        eventually(lambda: len(receiver.data_sets()) == len(proxy.sent), 30, what="all that was sent is kept")
        kept = [receiver.spool.read(receipt) for receipt in receiver.spool.waiting()]

    files = {str((ds := dcmread(path)).SOPInstanceUID): ds for path in paths}
    for part10 in kept:
        ds = dcmread(BytesIO(part10))
        assert different(ds, files[str(ds.SOPInstanceUID)]) == []
    assert len(proxy.sent) >= 110
    assert sorted(file[read_arrival(file)[1] :] for file in kept) == sorted(each.data_set for each in proxy.sent)
