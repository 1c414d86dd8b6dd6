"""pydicom's test objects through the whole path: each arrives byte for byte, or waits in quarantine for a reason named here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import pydicom.data
import pytest
from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from bench.peers import dcmsend
from bench.running import RunningHilum, Servers, running_hilum
from bench.wire import RawReceiver, RawSender, Sent, part10_data_set, recorder
from hilum.store import open_store

pytestmark = pytest.mark.system

UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")

#: These have their UIDs and end in the middle of an element: whoever gets them must know, so they wait for a person.
TRUNCATED = {"MR_truncated.dcm", "rtplan_truncated.dcm"}

#: Part 10 files without the UIDs that an instance needs, sent under UIDs of the sender's making.
WITHOUT_UIDS = {
    "JPEGLSNearLossless_08.dcm": "identifier-missing",
    "JPEGLSNearLossless_16.dcm": "identifier-missing",
    "SC_rgb_jls_lossy_line.dcm": "identifier-missing",
    "SC_rgb_jls_lossy_sample.dcm": "identifier-missing",
    "UN_sequence.dcm": "identifier-missing",
    "DICOMDIR": "identifier-missing",
    "DICOMDIR-bigEnd": "identifier-missing",
    "DICOMDIR-empty.dcm": "identifier-missing",
    "DICOMDIR-implicit": "identifier-missing",
    "DICOMDIR-nooffset": "truncated",
    "DICOMDIR-nopatient": "identifier-missing",
    "DICOMDIR-reordered": "identifier-missing",
    "empty_charset_LEI.dcm": "identifier-missing",
    "nested_priv_SQ.dcm": "identifier-missing",
    "no_meta_group_length.dcm": "identifier-missing",
    "priv_SQ.dcm": "identifier-missing",
}

#: Not Part 10 files at all: sent byte for byte as if they were data sets.
NO_FILE_META = {
    "crayons.icc": "unreadable",
    "README": "unreadable",
    "rtplan.dump": "unreadable",
    "rtstruct.dump": "unreadable",
    "zipMR.gz": "unreadable",
}


def shipped_files() -> list[Path]:
    """What pydicom ships, without what it would download."""
    return sorted(path for path in (Path(pydicom.data.__file__).parent / "test_files").rglob("*") if path.is_file())


def samples() -> list[list[Path]]:
    """Every test object that has its UIDs, in runs within which no SOP Instance UID comes twice."""
    by_uid: dict[str, list[Path]] = defaultdict(list)
    for path in shipped_files():
        try:
            ds = dcmread(path, stop_before_pixels=True)
        except (InvalidDicomError, IsADirectoryError, OSError):
            continue
        if all(ds.get(uid) for uid in UIDS) and ds.file_meta.get("TransferSyntaxUID"):
            by_uid[str(ds.SOPInstanceUID)].append(path)
    runs: list[list[Path]] = []
    for paths in by_uid.values():
        for n, path in enumerate(paths):
            if n == len(runs):
                runs.append([])
            runs[n].append(path)
    return runs


def whole_samples() -> list[list[Path]]:
    """Of each run those that do not end too early; none of a run that has no others."""
    return [whole for run in samples() if (whole := [path for path in run if path.name not in TRUNCATED])]


def identity(path: Path) -> tuple[str, str]:
    ds = dcmread(path, stop_before_pixels=True)
    return str(ds.SOPClassUID), str(ds.SOPInstanceUID)


def send_as_they_are(paths: Sequence[Path], port: int) -> list[int | None]:
    """Each file's data set, byte for byte as it is on disk."""
    statuses = []
    contexts = {(identity(path)[0], part10_data_set(path)[0]) for path in paths}
    for part in (sorted(contexts)[n : n + 128] for n in range(0, len(contexts), 128)):
        sender = RawSender(port, part)
        for path in paths:
            sop_class, instance = identity(path)
            transfer_syntax, data_set = part10_data_set(path)
            if (sop_class, transfer_syntax) in part:
                statuses.append(sender.send(sop_class, instance, transfer_syntax, data_set))
        sender.release()
    return statuses


def archived(hilum: RunningHilum, sent: Sent) -> bytes:
    """The data set that the archive holds for what was sent."""
    [(bucket, key)] = hilum.rows(
        "SELECT DISTINCT d.bucket, d.object_key FROM delivery d WHERE d.sop_instance_uid = %s AND d.sha256 = %s"
        " AND d.destination = 'archive' AND d.state = 'delivered'",
        sent.sop_instance_uid,
        sent.sha256,
    )
    with open_store(hilum.settings).open(bucket, key) as stream:
        content = BytesIO(stream.read())
    dcmread(content, stop_before_pixels=True)
    path = Path(hilum.config.parent / "fetched.dcm")
    path.write_bytes(content.getvalue())
    return part10_data_set(path)[1]


def assert_arrived(hilum: RunningHilum, pacs: RawReceiver, wire: Sequence[Sent]) -> None:
    for sent in wire:
        assert archived(hilum, sent) == sent.data_set, f"{sent.sop_instance_uid} in the archive"
        at_the_pacs = [got.data_set == sent.data_set for got in pacs.received[sent.sop_instance_uid]]
        assert at_the_pacs == [True], f"{sent.sop_instance_uid} at the PACS"


def reasons(hilum: RunningHilum) -> Mapping[str, str]:
    """Why each object waits, by the SOP Instance UID that its sender announced."""
    query = """
        SELECT convert_from(input, 'UTF8')::jsonb -> 'instance' ->> 'announced_sop_instance_uid', reason
        FROM quarantine WHERE state = 'waiting'
    """
    return dict(hilum.rows(query))


@pytest.mark.peer("dcmsend")
@pytest.mark.parametrize("run", range(8))
def test_every_sample_arrives_as_it_was_on_the_wire(tmp_path: Path, servers: Servers, run: int) -> None:
    paths = whole_samples()[run]
    pacs = RawReceiver()
    with running_hilum(tmp_path, pacs.port, images_only=True, servers=servers()) as hilum, recorder(hilum.port) as proxy:
        if run == 0:
            dcmsend(paths, proxy.port, "HILUM")
        sent_by_dcmtk = {sent.sop_instance_uid for sent in proxy.sent}
        rest = [path for path in paths if identity(path)[1] not in sent_by_dcmtk]
        assert set(send_as_they_are(rest, proxy.port)) <= {0x0000}
        account = hilum.come_to_rest()

        assert account.unaccounted == 0
        assert account.quarantined == 0
        assert {sent.sop_instance_uid for sent in proxy.sent} == {identity(path)[1] for path in paths}
        assert_arrived(hilum, pacs, proxy.sent)
    pacs.close()


def test_there_are_no_more_samples_than_the_runs_send() -> None:
    assert len(whole_samples()) == 8


def test_samples_under_one_uid_sent_together_each_have_their_outcome(one_hilum: RunningHilum, pacs: RawReceiver) -> None:
    [first, *others] = [path for run in samples() for path in run if path.name.startswith("MR_small")]
    assert len(others) == 7
    instance = identity(first)[1]

    send_as_they_are([first, *others, first], one_hilum.port)

    account = one_hilum.come_to_rest()
    outcomes = one_hilum.rows(
        "SELECT decision, quarantine_reason, count(*) FROM receipt WHERE sop_instance_uid = %s GROUP BY 1, 2 ORDER BY 3, 1", instance
    )
    assert outcomes == [("deliver", None, 1), ("duplicate", None, 8)]  # one image in eight encodings, and once more
    assert [got.data_set for got in pacs.received[instance]] == [part10_data_set(first)[1]]
    assert account.unaccounted == 0


def test_what_lacks_its_uids_or_is_no_data_set_waits_in_quarantine_for_a_named_reason(one_hilum: RunningHilum, pacs: RawReceiver) -> None:
    files = {path.name: path for path in shipped_files()}
    expected = {}
    sender = RawSender(one_hilum.port, [(CTImageStorage, ts) for ts in sorted({*_syntaxes(files), ImplicitVRLittleEndian})])
    for n, (name, reason) in enumerate((WITHOUT_UIDS | NO_FILE_META).items()):
        uid = f"2.25.4{n:03d}"
        transfer_syntax, data_set = (
            part10_data_set(files[name]) if name in WITHOUT_UIDS else (str(ImplicitVRLittleEndian), files[name].read_bytes())
        )
        assert sender.send(CTImageStorage, uid, transfer_syntax, data_set) is not None
        expected[uid] = reason
    sender.release()

    account = one_hilum.come_to_rest()

    found = reasons(one_hilum)
    assert {uid: found.get(uid) for uid in expected} == expected
    assert not set(expected) & set(pacs.received)
    assert account.unaccounted == 0


def test_a_data_set_that_ends_too_early_waits_in_quarantine(tmp_path: Path, servers: Servers) -> None:
    paths = [path for run in samples() for path in run if path.name in TRUNCATED]
    pacs = RawReceiver()
    with running_hilum(tmp_path, pacs.port, images_only=True, servers=servers()) as hilum:
        send_as_they_are(paths, hilum.port)
        account = hilum.come_to_rest()

        assert reasons(hilum) == {identity(path)[1]: "truncated" for path in paths}
        assert (account.quarantined, account.unaccounted, pacs.received) == (2, 0, {})
    pacs.close()


def _syntaxes(files: Mapping[str, Path]) -> set[str]:
    return {part10_data_set(files[name])[0] for name in WITHOUT_UIDS} | {str(ExplicitVRLittleEndian)}
