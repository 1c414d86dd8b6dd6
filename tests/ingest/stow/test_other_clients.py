"""Every sample of pydicom's by the STOW-RS clients of other makers: as it is on the wire it is kept, and nothing of the file is lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import h11
import pytest
import requests
from dicomweb_client import DICOMwebClient
from pydicom import dcmread
from pydicom.filereader import _read_file_meta_info, read_preamble

from bench.peers import ORTHANC_DICOMWEB, free_port, orthanc
from bench.wire import Sent, recorder
from hilum.testing import eventually
from tests.peers import NOT_FOR_ORTHANC, clear_orthanc, give_to_orthanc
from tests.storable import in_runs, missing, storable
from tests.stow_client import running

IMPLICIT, DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"


class Posted:
    """Finds the data sets in the requests of one connection (PS3.18 8.6.1, RFC 2046 5.1)."""

    def __init__(self, sent: list[Sent]) -> None:
        self._sent = sent
        self._connection = h11.Connection(h11.SERVER)
        self._body = bytearray()
        self._boundary = b""

    def feed(self, data: bytes) -> None:
        self._connection.receive_data(data)
        while (event := self._connection.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            if isinstance(event, h11.Request):
                kind = dict(event.headers)[b"content-type"]
                self._boundary = b"--" + kind.split(b"boundary=")[1].split(b";")[0].strip(b'" ')
                self._body.clear()
            elif isinstance(event, h11.Data):
                self._body += event.data
            elif isinstance(event, h11.EndOfMessage):
                self._read()
                rest, _ = self._connection.trailing_data
                self._connection = h11.Connection(h11.SERVER)
                if rest:  # nothing would mean that the connection ends
                    self._connection.receive_data(rest)

    def _read(self) -> None:
        for part in self._body.split(self._boundary)[1:-1]:
            _, content = part.removesuffix(b"\r\n").split(b"\r\n\r\n", 1)
            self._sent.append(Sent(sop_class_uid="", sop_instance_uid="", data_set=data_set_of(bytes(content))))


def data_set_of(part10: bytes) -> bytes:
    """What comes after the File Meta Information."""
    file = BytesIO(part10)
    read_preamble(file, force=False)
    _read_file_meta_info(file)
    return file.read()


@contextmanager
def stow(folder: Path, kept: list[bytes]) -> Iterator[str]:
    """A base URL. In the end `kept` has what is in the spool, which is what passed on the wire."""
    with running(folder / "hilum") as receiver, recorder(receiver.port, Posted) as proxy:
        yield f"http://127.0.0.1:{proxy.port}/dicom-web"
        eventually(lambda: len(receiver.spool.waiting()) >= len(proxy.sent), what="all that was sent is kept")
        kept += [receiver.spool.read(receipt) for receipt in receiver.spool.waiting()]
        assert sorted(data_set for _, data_set in receiver.stored()) == sorted(each.data_set for each in proxy.sent)


@pytest.mark.parametrize("at_once", [20, 1000])
def test_dicomweb_client_delivers_every_sample(tmp_path: Path, at_once: int) -> None:
    kept: list[bytes] = []
    data_sets = [dcmread(sample.path) for sample in storable()]

    with stow(tmp_path, kept) as url:
        client = DICOMwebClient(url)
        for n in range(0, len(data_sets), at_once):
            client.store_instances(data_sets[n : n + at_once])

    assert missing(storable(), kept) == set()


@pytest.mark.peer("Orthanc", ORTHANC_DICOMWEB)
@pytest.mark.parametrize(
    ("settings", "server"),
    [
        ({}, {}),
        ({"IngestTranscoding": IMPLICIT}, {}),
        ({"IngestTranscoding": DEFLATED}, {"ChunkedTransfers": False}),
        ({"IngestTranscoding": BIG_ENDIAN}, {"ChunkedTransfers": False}),
    ],
)
def test_orthancs_dicomweb_plugin_delivers_every_sample_that_orthanc_takes(
    tmp_path: Path, settings: Mapping[str, object], server: Mapping[str, object]
) -> None:
    kept: list[bytes] = []
    http = free_port()
    address = f"http://127.0.0.1:{http}"

    with stow(tmp_path, kept) as url:
        plugin = {"Plugins": [ORTHANC_DICOMWEB], "DicomWeb": {"Enable": True, "Servers": {"hilum": {"Url": url + "/", **server}}}}
        with orthanc(tmp_path / "orthanc", free_port(), http, 1, lua="", more={**plugin, **settings}) as process:
            for run in in_runs(storable()):
                taken = give_to_orthanc(address, [sample.path for sample in run])
                to_hilum = f"{address}/dicom-web/servers/hilum/stow"
                sent = requests.post(to_hilum, json={"Resources": taken, "Synchronous": True}, timeout=60)
                assert (sent.status_code, sent.json()["InstancesCount"]) == (200, str(len(taken))), sent.text
                clear_orthanc(address, taken)
            process.kill()  # it takes 2 s to end by itself, and has nothing to save

    assert missing([sample for sample in storable() if sample.name not in NOT_FOR_ORTHANC], kept) == set()
