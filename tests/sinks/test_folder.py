from __future__ import annotations

import os
import stat
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from hilum.errors import Misconfigured
from hilum.part10 import Part10, Unsound, data_set_offset
from hilum.settings import Settings
from hilum.sink import Delivery, Outage, Settled, sink_of
from hilum.testing import MemoryStore, SinkContract, a_delivery
from sinks.folder import Folder


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "share"
    folder.mkdir()
    return folder


def deliver(sink: Folder, store: MemoryStore, delivery: Delivery) -> Settled:
    return sink.open(Settings()).deliver(delivery, Part10(store, delivery.object))


def files(path: Path) -> dict[str, bytes]:
    return {each.relative_to(path).as_posix(): each.read_bytes() for each in path.rglob("*") if each.is_file()}


class TestFolder(SinkContract):
    @pytest.fixture
    def settings(self) -> Settings:
        return Settings()

    @pytest.fixture
    def sink(self, path: Path) -> Folder:
        return Folder(path=str(path))

    @pytest.fixture
    def broken_sink(self, path: Path) -> Folder:
        return Folder(path=str(path / "unmounted"))

    @pytest.fixture
    def arrived(self, path: Path) -> Callable[[str], list[bytes]]:
        def found(uid: str) -> list[bytes]:
            return [whole[data_set_offset(whole) :] for name, whole in files(path).items() if name.endswith(f"{uid}.dcm")]

        return found


def test_a_file_is_the_stored_object_at_the_path_of_its_uids(path: Path, store: MemoryStore) -> None:
    delivery = a_delivery(store)

    assert deliver(Folder(path=str(path)), store, delivery).state == "delivered"
    assert files(path) == {"2.25.1/2.25.2/2.25.3.dcm": store.objects[delivery.object.bucket, delivery.object.key]}
    assert stat.S_IMODE((path / "2.25.1/2.25.2/2.25.3.dcm").stat().st_mode) & 0o027 == 0


def test_the_layout_takes_values_of_the_header(path: Path, store: MemoryStore) -> None:
    sink = Folder(path=str(path), layout="{Modality}/{PatientName}/{StudyDate}-{InstanceNumber}-{SOPInstanceUID}")
    deliver(sink, store, a_delivery(store, PatientName="Marked^Patient"))

    assert list(files(path)) == ["CT/Marked^Patient/20240229-1-2.25.3"]


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("../../etc/passwd", ".._.._etc_passwd"),
        ("..", "_"),
        (".", "_"),
        ("", "none"),
        ("a/b", "a_b"),
        ("CON", "_CON"),
        ("nul.txt", "_nul.txt"),
        ("x" * 64, "x" * 64),
        ("Größe\u0000", "Gr_e"),
        ("name. ", "name"),
    ],
)
def test_no_value_leads_out_of_the_folder(path: Path, store: MemoryStore, value: str, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        delivery = a_delivery(store, PatientID=value, SpecificCharacterSet="ISO_IR 192")
    deliver(Folder(path=str(path), layout="{PatientID}/{sha256}.dcm"), store, delivery)

    assert list(files(path)) == [f"{name}/{delivery.object.sha256}.dcm"]


def test_the_same_object_again_is_there_already_and_written_no_second_time(path: Path, store: MemoryStore) -> None:
    delivery = a_delivery(store)
    deliver(Folder(path=str(path)), store, delivery)
    before = (path / "2.25.1/2.25.2/2.25.3.dcm").stat().st_ino

    assert deliver(Folder(path=str(path)), store, delivery).state == "already_there"
    assert (path / "2.25.1/2.25.2/2.25.3.dcm").stat().st_ino == before


@pytest.mark.parametrize(("existing", "state", "kept"), [("replace", "delivered", "B"), ("keep", "rejected", "A")])
def test_another_object_at_the_same_path_is_replaced_or_kept(path: Path, store: MemoryStore, existing: str, state: str, kept: str) -> None:
    sink = Folder(path=str(path), existing=existing)  # type: ignore[arg-type]  # one of two
    first, second = (a_delivery(store, PatientID=name) for name in "AB")
    deliver(sink, store, first)

    assert deliver(sink, store, second).state == state
    expected = {"A": first, "B": second}[kept]
    assert list(files(path).values()) == [store.objects[expected.object.bucket, expected.object.key]]


def test_an_object_that_is_not_what_was_received_leaves_no_file(path: Path, store: MemoryStore) -> None:
    delivery = a_delivery(store)
    where = (delivery.object.bucket, delivery.object.key)
    store.objects[where] = store.objects[where][:-1] + b"X"

    with pytest.raises(Unsound):
        deliver(Folder(path=str(path)), store, delivery)
    assert files(path) == {}


def test_a_folder_that_is_gone_is_an_outage_and_is_not_made_anew(path: Path, store: MemoryStore) -> None:
    sink = Folder(path=str(path / "unmounted"))

    with pytest.raises(Outage, match="is no folder"):
        deliver(sink, store, a_delivery(store))
    assert not (path / "unmounted").exists()


def test_a_full_disk_is_an_outage_without_a_value_in_its_words(small_disk: Path, store: MemoryStore) -> None:
    delivery = a_delivery(store, PatientID="MRN-1", data_set=bytes(2 * 2**20))

    with pytest.raises(Outage, match="No space left on device") as outage:
        deliver(Folder(path=str(small_disk)), store, delivery)
    assert "MRN-1" not in str(outage.value)
    assert files(small_disk) == {}


def test_a_path_that_no_file_system_takes_is_rejected(path: Path, store: MemoryStore) -> None:
    layout = "{PatientID}" * 8 + "{SOPInstanceUID}"

    assert deliver(Folder(path=str(path), layout=layout), store, a_delivery(store, PatientID="x" * 64)).state == "rejected"
    assert files(path) == {}


def test_what_a_crash_left_is_removed_once_it_is_old(path: Path, store: MemoryStore) -> None:
    old, new = path / ".hilum-1.part", path / ".hilum-2.part"
    for each in (old, new):
        each.write_bytes(b"half")
    os.utime(old, (time.time() - 100_000,) * 2)

    deliver(Folder(path=str(path)), store, a_delivery(store))

    assert (old.exists(), new.exists()) == (False, True)


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ("{PatientID}.dcm", "objects would overwrite each other"),
        ("{PatientNumber}/{SOPInstanceUID}", "is no DICOM keyword"),
        ("/data/{SOPInstanceUID}", "no relative path"),
        ("../{SOPInstanceUID}", "no relative path"),
        ("a//{SOPInstanceUID}", "no relative path"),
        ("{SOPInstanceUID", "braces do not match"),
        ("{SOPInstanceUID!r}", "more than a name"),
    ],
)
def test_a_layout_that_cannot_work_is_refused(path: Path, layout: str, words: str) -> None:
    with pytest.raises(Misconfigured, match=words):
        sink_of("share", {"type": "folder", "path": str(path), "layout": layout})


def test_the_check_leaves_nothing_behind_but_the_test_object(path: Path) -> None:
    assert [step.name for step in Folder(path=str(path)).check(Settings())] == ["folder", "writing"]
    assert files(path) == {}

    *_, last = Folder(path=str(path)).check(Settings(), with_object=True)
    assert last.ok
    assert list(files(path)) == ["hilum-test-object.dcm"]


def test_a_folder_that_may_not_be_written_to_fails_the_check(read_only: Path) -> None:
    *_, last = Folder(path=str(read_only)).check(Settings())

    assert (last.name, last.ok, last.fix) == ("writing", False, "Let Hilum's user write there.")
