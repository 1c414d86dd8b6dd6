from __future__ import annotations

import contextlib
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from hilum.dicom.commitment import (
    ALL_COMMITTED,
    FAILURES_EXIST,
    Failure,
    FailureReason,
    Reference,
    is_taken,
    read_report,
    read_request,
    reason_text,
    write_report,
)

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
CT = "1.2.840.10008.5.1.4.1.1.2"

uids = st.integers(0, 10**58).map(lambda number: f"2.25.{number}")
references = st.builds(Reference, uids, uids)
syntaxes = st.sampled_from([IMPLICIT, EXPLICIT])


def encoded(ds: Dataset, syntax: str) -> bytes:
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = True, syntax == IMPLICIT
    write_dataset(out, ds)
    return out.getvalue()


def decoded(data_set: bytes, syntax: str) -> Dataset:
    """As pydicom reads it."""
    return dcmread(BytesIO(head(syntax) + data_set))


def head(syntax: str) -> bytes:
    """Preamble and File Meta of a file in `syntax`."""
    meta = Dataset()
    meta.TransferSyntaxUID = syntax
    body = encoded(meta, EXPLICIT)
    length = Dataset()
    length.FileMetaInformationGroupLength = len(body)
    return bytes(128) + b"DICM" + encoded(length, EXPLICIT) + body


def item(sop_class: str = CT, instance: str = "2.25.3") -> Dataset:
    ds = Dataset()
    ds.ReferencedSOPClassUID, ds.ReferencedSOPInstanceUID = sop_class, instance
    return ds


def a_request(*items: Dataset, transaction: str = "2.25.9") -> Dataset:
    ds = Dataset()
    ds.TransactionUID = transaction
    ds.ReferencedSOPSequence = list(items)
    return ds


@settings(max_examples=100, deadline=None)
@given(uids, st.lists(references, min_size=1, max_size=20, unique=True), syntaxes, st.booleans())
def test_a_request_is_read_as_pydicom_writes_it(transaction: str, asked: list[Reference], syntax: str, undefined_lengths: bool) -> None:
    ds = a_request(*(item(*reference) for reference in map(tuple_of, asked)), transaction=transaction)
    for each in ds.ReferencedSOPSequence:
        each.is_undefined_length_sequence_item = undefined_lengths
    ds["ReferencedSOPSequence"].is_undefined_length = undefined_lengths

    found = read_request(encoded(ds, syntax), syntax)

    assert (found.transaction_uid, found.references) == (transaction, tuple(asked))


def tuple_of(reference: Reference) -> tuple[str, str]:
    return reference.sop_class_uid, reference.sop_instance_uid


@settings(max_examples=100, deadline=None)
@given(
    uids,
    st.lists(references, max_size=10, unique=True),
    st.lists(st.builds(Failure, references, st.sampled_from(FailureReason)), max_size=10),
    syntaxes,
)
def test_a_report_is_read_by_pydicom_as_it_was_meant(
    transaction: str, committed: list[Reference], failures: list[Failure], syntax: str
) -> None:
    event_type, data_set = write_report(transaction, committed, failures, syntax)

    ds = decoded(data_set, syntax)
    assert event_type == (FAILURES_EXIST if failures else ALL_COMMITTED)
    assert ds.TransactionUID == transaction
    assert [(i.ReferencedSOPClassUID, i.ReferencedSOPInstanceUID) for i in ds.get("ReferencedSOPSequence", [])] == [
        *map(tuple_of, committed)
    ]
    assert [(i.ReferencedSOPClassUID, i.ReferencedSOPInstanceUID, i.FailureReason) for i in ds.get("FailedSOPSequence", [])] == [
        (*tuple_of(failure.reference), failure.reason) for failure in failures
    ]
    assert encoded(ds, syntax) == data_set


def test_a_sequence_without_items_is_left_out_of_a_report() -> None:
    _, data_set = write_report("2.25.9", [Reference(CT, "2.25.3")], [], EXPLICIT)

    assert "FailedSOPSequence" not in decoded(data_set, EXPLICIT)


def test_a_reference_that_is_there_twice_is_taken_once() -> None:
    assert len(read_request(encoded(a_request(item(), item()), IMPLICIT), IMPLICIT).references) == 1


def test_a_request_for_30_000_objects_is_read_whole() -> None:
    asked = a_request(*(item(instance=f"2.25.{10**37 + n}") for n in range(30_000)))

    assert len(read_request(encoded(asked, EXPLICIT), EXPLICIT).references) == 30_000


def without(keyword: str) -> bytes:
    ds = a_request(item())
    del ds[keyword]
    return encoded(ds, IMPLICIT)


@pytest.mark.parametrize(
    "data_set",
    [
        b"",
        b"Dear archive, please keep my images.",
        without("TransactionUID"),
        without("ReferencedSOPSequence"),
        encoded(a_request(), IMPLICIT),
        encoded(a_request(item(), transaction="1..2"), IMPLICIT),
        encoded(a_request(item(instance="1..2")), IMPLICIT),
        encoded(a_request(item(), Dataset()), IMPLICIT),
        encoded(a_request(item()), IMPLICIT)[:-3],
    ],
    ids=["empty", "a letter", "no transaction", "no sequence", "no items", "no UID", "no instance UID", "an empty item", "cut off"],
)
def test_a_request_that_asks_for_nothing_is_refused_without_showing_its_values(data_set: bytes) -> None:
    with pytest.raises(ValueError) as stop:
        read_request(data_set, IMPLICIT)

    assert "1..2" not in str(stop.value)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), syntaxes)
def test_whatever_comes_is_read_or_refused(data_set: bytes, syntax: str) -> None:
    with contextlib.suppress(ValueError):
        assert read_request(data_set, syntax).references


@settings(max_examples=200, deadline=None)
@given(st.data(), syntaxes)
def test_a_garbled_request_is_read_or_refused(data: st.DataObject, syntax: str) -> None:
    raw = bytearray(encoded(a_request(item(), item(instance="2.25.4")), syntax))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError):
        assert read_request(bytes(raw), syntax).references


@pytest.mark.parametrize(
    ("status", "taken"), [(0x0000, True), (0x0107, True), (0xB000, True), (0x0110, False), (0x0211, False), (0xA700, False)]
)
def test_a_report_is_taken_with_success_or_a_warning(status: int, taken: bool) -> None:
    assert is_taken(status) is taken


def test_a_reason_is_shown_by_its_name_if_it_has_one() -> None:
    assert (reason_text(0x0112), reason_text(0x0999)) == ("no-such-instance", "0999H")


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_a_report_reads_as_it_was_written(syntax: str) -> None:
    committed = [Reference("1.2.840.10008.5.1.4.1.1.2", f"2.25.{n}") for n in range(3)]
    failed = [Failure(Reference("1.2.840.10008.5.1.4.1.1.2", "2.25.9"), FailureReason.NO_SUCH_INSTANCE)]
    _, data_set = write_report("2.25.1", committed, failed, syntax)

    report = read_report(data_set, syntax)

    assert report.transaction_uid == "2.25.1"
    assert report.committed == ("2.25.0", "2.25.1", "2.25.2")
    assert report.failed == {"2.25.9": 0x0112}


@given(st.binary(max_size=300))
def test_a_report_that_is_none_is_refused_without_a_value(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        read_report(data, EXPLICIT)
