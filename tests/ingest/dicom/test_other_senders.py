"""Every sample of pydicom's by the senders of other makers, in every transfer syntax that these can propose.

What they put on the wire is kept byte for byte, and nothing of the file is lost. The wire is read by a proxy between the two.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

import pytest
import requests
from msgspec import Struct
from pydicom import dcmread
from pydicom.uid import UID

from bench.peers import ENVIRONMENT, free_port, orthanc
from bench.wire import recorder
from hilum.spool import read_arrival
from hilum.testing import eventually
from tests.ingest.dicom.running import running
from tests.peers import NOT_FOR_ORTHANC, clear_orthanc, give_to_orthanc
from tests.storable import BARE_DATA_SETS, Sample, a_sample, in_runs, missing, storable

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
JPEG_LS = "1.2.840.10008.1.2.4.80"
JPEG_LS_NEAR = "1.2.840.10008.1.2.4.81"
JPEG_2000 = "1.2.840.10008.1.2.4.90"
JPEG_2000_LOSSY = "1.2.840.10008.1.2.4.91"
RLE = "1.2.840.10008.1.2.5"

LITTLE_ENDIAN = {IMPLICIT, EXPLICIT, DEFLATED}
UNCOMPRESSED = {*LITTLE_ENDIAN, BIG_ENDIAN}
LOSSY = {JPEG_BASELINE, JPEG_EXTENDED, JPEG_LS_NEAR, JPEG_2000_LOSSY}
LOSSLESS = {JPEG_LOSSLESS, JPEG_LS, JPEG_2000, RLE}
COMPRESSED = LOSSY | LOSSLESS
VIDEO = {
    "-xm": "1.2.840.10008.1.2.4.100",
    "-xh": "1.2.840.10008.1.2.4.101",
    "-xn": "1.2.840.10008.1.2.4.102",
    "-xl": "1.2.840.10008.1.2.4.103",
    "-x2": "1.2.840.10008.1.2.4.104",
    "-x3": "1.2.840.10008.1.2.4.105",
    "-xo": "1.2.840.10008.1.2.4.106",
    "-x4": "1.2.840.10008.1.2.4.107",
    "-x5": "1.2.840.10008.1.2.4.108",
}

#: Their UIDs are written as UN, of which dcmtk makes `31\\2e\\32...`: storescu does not send them, and dcmsend announces another class.
UIDS_OF_UNKNOWN_VR = {"test_files/rtdose_rle.dcm", "test_files/rtdose_rle_1frame.dcm"}
AS_DCMSEND_ANNOUNCES_THEM = {"31"}

Send = Callable[[Sequence[Path], int, Path], None]


class Delivered(Struct, frozen=True):
    """What is kept of what a sender put on the wire, as Part 10 files."""

    kept: list[bytes]

    @property
    def transfer_syntaxes(self) -> list[str]:
        """Of each object."""
        return [read_arrival(part10)[0].transfer_syntax_uid for part10 in self.kept]


def delivered(
    folder: Path, samples: Iterable[Sample], send: Send, prefers: tuple[str, ...] = (), refused: Collection[str] = ()
) -> Delivered:
    """Send files to a receiver that prefers these transfer syntaxes: it keeps byte for byte what passed on the wire.

    But for the objects that were announced under one of the SOP classes `refused`, which nobody proposed (PS3.7 9.1.1.1.9, 0122H).
    """
    with running(folder / "hilum", transfer_syntaxes=prefers) as receiver, recorder(receiver.receiver.port) as proxy:
        send([sample.path for sample in samples], proxy.port, folder)
        sent = sorted(each.data_set for each in proxy.sent if each.sop_class_uid not in refused)
        eventually(lambda: len(receiver.data_sets()) >= len(sent), what="all that was sent is kept")
        kept = [receiver.spool.read(receipt) for receipt in receiver.spool.waiting()]
    assert sorted(file[read_arrival(file)[1] :] for file in kept) == sent
    return Delivered(kept)


def without(transfer_syntaxes: set[str], samples: Iterable[Sample], names: Collection[str] = ()) -> list[Sample]:
    """The samples that are not encoded so and not named so."""
    return [sample for sample in samples if sample.transfer_syntax not in transfer_syntaxes and sample.name not in names]


def for_dcmtk() -> list[Sample]:
    """Also the files without File Meta Information."""
    return [*storable(), *map(a_sample, BARE_DATA_SETS)]


class TestDcmtk:
    """`storescu` and `dcmsend`. They take files without File Meta Information too."""

    @staticmethod
    def storescu(*options: str) -> Send:
        def send(paths: Sequence[Path], port: int, _: Path) -> None:
            command = ["storescu", "-nh", "-R", "-aec", "HILUM", *options, "127.0.0.1", str(port), *map(str, paths)]
            subprocess.run(command, env=ENVIRONMENT, capture_output=True, check=True, timeout=60)

        return send

    @staticmethod
    def dcmsend(*options: str) -> Send:
        def send(paths: Sequence[Path], port: int, _: Path) -> None:
            command = ["dcmsend", "-nh", "+f", "-aec", "HILUM", *options, "127.0.0.1", str(port), *map(str, paths)]
            subprocess.run(command, env=ENVIRONMENT, capture_output=True, check=True, timeout=60)

        return send

    @pytest.mark.peer("storescu")
    @pytest.mark.parametrize(
        ("option", "compressed", "arrives"),
        [
            ("-x=", "", {EXPLICIT, IMPLICIT}),
            ("-xe", "", {EXPLICIT, IMPLICIT}),
            ("-xb", "", {EXPLICIT, BIG_ENDIAN}),
            ("-xi", "", {IMPLICIT}),
            ("-xd", "", {DEFLATED}),
            ("-xs", JPEG_LOSSLESS, {EXPLICIT, JPEG_LOSSLESS}),
            ("-xy", JPEG_BASELINE, {EXPLICIT, JPEG_BASELINE}),
            ("-xx", JPEG_EXTENDED, {EXPLICIT, JPEG_EXTENDED}),
            ("-xv", JPEG_2000, {EXPLICIT, JPEG_2000}),
            ("-xw", JPEG_2000_LOSSY, {EXPLICIT, JPEG_2000_LOSSY}),
            ("-xt", JPEG_LS, {EXPLICIT, JPEG_LS}),
            ("-xu", JPEG_LS_NEAR, {EXPLICIT, JPEG_LS_NEAR}),
            ("-xr", RLE, {EXPLICIT, RLE}),
        ],
    )
    def test_storescu_delivers_what_is_not_compressed_and_what_is_as_proposed(
        self, tmp_path: Path, option: str, compressed: str, arrives: set[str]
    ) -> None:
        samples = for_dcmtk()

        found = delivered(tmp_path, samples, self.storescu(option))

        assert set(found.transfer_syntaxes) == arrives
        assert missing(without(COMPRESSED - {compressed}, samples, UIDS_OF_UNKNOWN_VR), found.kept) == set()

    @pytest.mark.peer("storescu")
    @pytest.mark.parametrize("prefers", [EXPLICIT, IMPLICIT, BIG_ENDIAN])
    def test_storescu_delivers_what_is_not_compressed_as_hilum_prefers_it_of_one_context(self, tmp_path: Path, prefers: str) -> None:
        samples = for_dcmtk()

        found = delivered(tmp_path, samples, self.storescu("+C"), (prefers,))

        assert set(found.transfer_syntaxes) == {prefers}
        assert missing(without(COMPRESSED, samples), found.kept) == set()

    @pytest.mark.peer("storescu")
    @pytest.mark.parametrize("option", VIDEO)
    def test_storescu_delivers_what_has_no_pixels_and_videos_in_the_video_syntaxes(self, tmp_path: Path, option: str) -> None:
        samples = for_dcmtk()
        video = a_video(tmp_path / "video.dcm", VIDEO[option])

        found = delivered(tmp_path, [*samples, video], self.storescu(option))

        assert set(found.transfer_syntaxes) == {VIDEO[option]}
        assert missing([video, *(sample for sample in samples if "PixelData" not in sample.data_set)], found.kept) == set()

    @pytest.mark.peer("dcmsend")
    @pytest.mark.parametrize("option", ["-dn", "+dls", "+dly", "-ma"])
    def test_dcmsend_delivers_each_file_as_it_is_compressed(self, tmp_path: Path, option: str) -> None:
        samples = for_dcmtk()

        found = delivered(tmp_path, samples, self.dcmsend(option), refused=AS_DCMSEND_ANNOUNCES_THEM)

        assert set(found.transfer_syntaxes) == {EXPLICIT, DEFLATED} | COMPRESSED
        assert missing(without(set(), samples, UIDS_OF_UNKNOWN_VR), found.kept) == set()

    @pytest.mark.peer("dcmsend")
    @pytest.mark.parametrize("prefers", [EXPLICIT, IMPLICIT, BIG_ENDIAN])
    @pytest.mark.parametrize(("option", "keeps"), [("+dls", {*LOSSY, JPEG_2000}), ("+dly", {JPEG_2000, JPEG_2000_LOSSY})])
    def test_dcmsend_decompresses_what_it_can_when_hilum_prefers_that(
        self, tmp_path: Path, option: str, keeps: set[str], prefers: str
    ) -> None:
        samples = for_dcmtk()

        found = delivered(tmp_path, samples, self.dcmsend(option), (prefers,), AS_DCMSEND_ANNOUNCES_THEM)

        assert set(found.transfer_syntaxes) == {prefers} | keeps
        assert missing(without(set(), samples, UIDS_OF_UNKNOWN_VR), found.kept) == set()

    @pytest.mark.peer("dcmsend")
    @pytest.mark.parametrize(("decompress", "holds_back"), [("-dn", {*LOSSLESS, DEFLATED}), ("+dls", {JPEG_2000}), ("+dly", {JPEG_2000})])
    def test_dcmsend_delivers_what_it_can_propose_together_with_the_default_syntax(
        self, tmp_path: Path, decompress: str, holds_back: set[str]
    ) -> None:
        samples = for_dcmtk()

        found = delivered(tmp_path, samples, self.dcmsend(decompress, "-nip"), refused=AS_DCMSEND_ANNOUNCES_THEM)

        assert missing(without(holds_back, samples, UIDS_OF_UNKNOWN_VR), found.kept) == set()

    @pytest.mark.peer("echoscu")
    def test_echoscu_is_answered_whatever_it_proposes(self, tmp_path: Path) -> None:
        with running(tmp_path) as receiver:
            for options in (["-pts", "1"], ["-pts", "38"], ["-ppc", "128"], ["-pts", "38", "-ppc", "128", "--repeat", "3"]):
                command = ["echoscu", "-aec", "HILUM", *options, "127.0.0.1", str(receiver.receiver.port)]
                subprocess.run(command, env=ENVIRONMENT, capture_output=True, check=True, timeout=60)


class TestPynetdicom:
    """Its `storescu` converts between the little-endian syntaxes and nothing else."""

    @staticmethod
    def storescu(*options: str) -> Send:
        """Send with the app, and send anew what it has left when it breaks off.

        Its reactor thread may take an answer for a request to serve; then it waits in vain and aborts the association.
        """

        def send(paths: Sequence[Path], port: int, folder: Path) -> None:
            left = list(map(str, paths))
            while left:
                command = [sys.executable, "-W", "ignore", "-m", "pynetdicom", "storescu", "127.0.0.1", str(port), *left]
                options_too = ["-aec", "HILUM", "-td", "5", *options]
                done = subprocess.run([*command, *options_too], capture_output=True, text=True, check=True, timeout=60, cwd=folder)
                failed = re.findall("Store failed: (.+)", done.stderr)
                left = failed if "must be established before" in done.stderr else []

        return send

    @pytest.mark.parametrize(
        ("options", "prefers", "carries"),
        [
            ((), EXPLICIT, LITTLE_ENDIAN),
            ((), IMPLICIT, LITTLE_ENDIAN),
            ((), DEFLATED, LITTLE_ENDIAN),
            ((), BIG_ENDIAN, {BIG_ENDIAN}),
            (("-xe",), EXPLICIT, LITTLE_ENDIAN),
            (("-xi",), IMPLICIT, LITTLE_ENDIAN),
            (("-xb",), BIG_ENDIAN, {BIG_ENDIAN}),
        ],
    )
    def test_storescu_delivers_what_it_can_convert(self, tmp_path: Path, options: tuple[str, ...], prefers: str, carries: set[str]) -> None:
        samples = [sample for sample in storable() if sample.transfer_syntax in UNCOMPRESSED]

        found = delivered(tmp_path, samples, self.storescu(*options), (prefers,))

        assert set(found.transfer_syntaxes) == {prefers}
        assert missing(without(UNCOMPRESSED - carries, samples), found.kept) == set()

    def test_storescu_delivers_every_file_in_its_own_syntax(self, tmp_path: Path) -> None:
        found = delivered(tmp_path, storable(), self.storescu("-cx"))

        assert set(found.transfer_syntaxes) == UNCOMPRESSED | COMPRESSED
        assert missing(storable(), found.kept) == set()

    @pytest.mark.parametrize("option", ["-xe", "-xb", "-xi"])
    def test_echoscu_is_answered_in_each_syntax(self, tmp_path: Path, option: str) -> None:
        with running(tmp_path) as receiver:
            command = [sys.executable, "-m", "pynetdicom", "echoscu", "127.0.0.1", str(receiver.receiver.port), "-aec", "HILUM", option]
            answered = subprocess.run([*command, "-v"], capture_output=True, text=True, check=True, timeout=60)

        assert "Received Echo Response (Status: 0x0000 - Success)" in answered.stdout + answered.stderr


class TestOrthanc:
    """Orthanc as C-STORE SCU: it sends each file as it has it, or as it was told to transcode what it is given."""

    @staticmethod
    def cstore(settings: Mapping[str, object], had: list[Path] | None = None) -> Send:
        """Give Orthanc files and have it send them, in runs, as it keeps one object under each UID; what it has of them goes to `had`."""

        def send(paths: Sequence[Path], port: int, folder: Path) -> None:
            http = free_port()
            address = f"http://127.0.0.1:{http}"
            with orthanc(folder / "orthanc", free_port(), http, port, lua="", more=settings) as process:
                for run in in_runs(sample for sample in storable() if sample.path in paths):
                    taken = give_to_orthanc(address, [sample.path for sample in run])
                    if had is not None:
                        for instance in taken:
                            had.append(folder / f"had-{len(had)}.dcm")
                            had[-1].write_bytes(requests.get(f"{address}/instances/{instance}/file", timeout=60).content)
                    to_hilum = f"{address}/modalities/pacs/store"
                    requests.post(to_hilum, json={"Resources": taken, "Synchronous": True}, timeout=60).raise_for_status()
                    clear_orthanc(address, taken)
                process.kill()  # it takes 2 s to end by itself, and has nothing to save

        return send

    @pytest.mark.peer("Orthanc")
    @pytest.mark.parametrize(
        "settings",
        [{}, {"TranscodeDicomProtocol": False}, {"DicomScuPreferredTransferSyntax": JPEG_LOSSLESS}],
    )
    def test_what_it_has_is_delivered_in_its_own_syntax(self, tmp_path: Path, settings: dict[str, object]) -> None:
        found = delivered(tmp_path, storable(), self.cstore(settings))

        assert set(found.transfer_syntaxes) == (UNCOMPRESSED | COMPRESSED) - {JPEG_LS_NEAR}
        assert missing(without(set(), storable(), NOT_FOR_ORTHANC), found.kept) == set()

    @pytest.mark.peer("Orthanc")
    @pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED, JPEG_LOSSLESS, JPEG_LS])
    def test_what_it_transcodes_without_loss_is_delivered(self, tmp_path: Path, syntax: str) -> None:
        samples = can_be_transcoded(syntax)

        found = delivered(tmp_path, samples, self.cstore({"IngestTranscoding": syntax}))

        assert found.transfer_syntaxes.count(syntax) > 110
        assert missing(without(set(), samples, NOT_FOR_ORTHANC), found.kept) == set()

    @pytest.mark.peer("Orthanc")
    @pytest.mark.parametrize("syntax", [JPEG_BASELINE, JPEG_EXTENDED, JPEG_LS_NEAR])
    def test_what_it_transcodes_with_loss_is_delivered_under_its_new_uid(self, tmp_path: Path, syntax: str) -> None:
        had: list[Path] = []
        samples = can_be_transcoded(syntax)

        found = delivered(tmp_path, samples, self.cstore({"IngestTranscoding": syntax}, had))

        assert found.transfer_syntaxes.count(syntax) > 70
        assert len(found.kept) == len(without(set(), samples, NOT_FOR_ORTHANC))
        assert missing(map(a_file, had), found.kept) == set()


def can_be_transcoded(transfer_syntax: str) -> list[Sample]:
    """The samples that Orthanc (1.10.1) survives: of colour it dies at times, its heap corrupted, when it makes JPEG-LS."""
    if transfer_syntax not in {JPEG_LS, JPEG_LS_NEAR}:
        return list(storable())
    return [sample for sample in storable() if sample.data_set.get("SamplesPerPixel", 1) == 1]


def a_file(path: Path) -> Sample:
    ds = dcmread(path, stop_before_pixels=True)
    return Sample(name=path.name, path=path, sop_instance_uid=str(ds.SOPInstanceUID), transfer_syntax=str(ds.file_meta.TransferSyntaxUID))


def a_video(path: Path, transfer_syntax: str) -> Sample:
    """A compressed object under a transfer syntax of video, as no sample has one: its fragments are another codec's."""
    ds = dcmread(a_sample("test_files/SC_rgb_jpeg_dcmtk.dcm").path)
    ds.file_meta.TransferSyntaxUID = UID(transfer_syntax)
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = UID("2.25.1")
    ds.save_as(path)
    return Sample(name=path.name, path=path, sop_instance_uid="2.25.1", transfer_syntax=transfer_syntax)
