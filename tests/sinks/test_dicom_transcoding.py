"""Every test object of pydicom that can be decoded, at a peer that takes nothing but Implicit VR Little Endian."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.errors import InvalidDicomError
from pydicom.pixels.utils import pixel_array

from hilum.dicom import jpeg12
from hilum.dicom.file_meta import part10_head
from hilum.dicom.transcode import targets_for
from hilum.part10 import Part10, data_set_offset
from hilum.settings import Settings
from hilum.sink import Delivery, Settled
from hilum.testing import MemoryStore, a_delivery
from sinks.dicom import Dicom
from tests.peers import IMPLICIT, pacs

#: Broken on purpose: cut off, or with a delimiter inside a compressed stream.
UNDECODABLE = {"JPEG2000-embedded-sequence-delimiter.dcm", "MR_truncated.dcm", "rtplan_truncated.dcm"}


jpeg12.install()  # or pydicom cannot read two of the sources


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what pydicom finds odd in its own test objects
        yield


def offered(store: MemoryStore) -> Iterator[tuple[Path, Delivery]]:
    """Each sample and its delivery, under a SOP instance UID of its own: several samples are one image in different encodings."""
    for number, path in enumerate(sorted((Path(pydicom.data.__file__).parent / "test_files").rglob("*"))):
        if not path.is_file():
            continue
        try:
            ds = pydicom.dcmread(path, stop_before_pixels=True)
        except InvalidDicomError:
            continue
        own = str(ds.file_meta.get("TransferSyntaxUID", ""))
        if ds.get("SOPClassUID") and (targets_for(own) or own == IMPLICIT):
            whole = path.read_bytes()
            more = {"SOPClassUID": str(ds.SOPClassUID), "SOPInstanceUID": f"2.25.{number}"}
            yield path, a_delivery(store, transfer_syntax_uid=own, data_set=whole[data_set_offset(whole) :], **more)


def test_all_samples_arrive_with_their_pixels_or_are_rejected_in_words() -> None:
    store = MemoryStore()
    coming = list(offered(store))
    outcomes: dict[str, Settled] = {}
    with pacs(contexts=dict.fromkeys((each.sop_class_uid, IMPLICIT) for _, each in coming)) as there:
        session = Dicom(host="127.0.0.1", port=there.port, aet="PACS", group_by="none").open(Settings())
        session.begin([delivery for _, delivery in coming])
        for path, delivery in coming:
            outcomes[path.name] = session.deliver(delivery, Part10(store, delivery.object))
        session.close()

    rejected = {name: outcome.comment for name, outcome in outcomes.items() if outcome.state != "delivered"}
    assert set(rejected) <= UNDECODABLE, rejected
    assert len(outcomes) - len(rejected) > 100
    compared = 0
    for path, delivery in coming:
        if path.name not in rejected and "PixelData" in (source := pydicom.dcmread(path)):
            [data_set] = there.stored[delivery.sop_instance_uid]
            found = pydicom.dcmread(BytesIO(part10_head("1.2", "1.3", IMPLICIT) + data_set))
            try:
                expected = pixel_array(source, raw=True)
            except (AttributeError, ValueError):
                continue  # pydicom cannot make an array of the source itself
            assert np.array_equal(pixel_array(found, raw=True), expected), path.name
            compared += 1
    assert compared > 80
