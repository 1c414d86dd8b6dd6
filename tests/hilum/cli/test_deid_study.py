"""`hilum deid preview STUDY`: a stored study as it would leave now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from hilum.anonymizing import anonymizer_of, package
from hilum.cli.deid_study import Showing, StudyPreview, is_stored, preview_of, show
from hilum.database import connect
from hilum.database.choices import add
from hilum.deid_sections import Deid
from hilum.errors import NotFound
from hilum.order_events import Identifier, Patient
from hilum.settings import Postgres, Settings
from hilum.sink import Delivery
from hilum.testing import MemoryStore
from tests.hilum.test_anonymizing import SECRET, stored

pytestmark = pytest.mark.system


@pytest.fixture
def settings(tmp_path: Path, postgres: str) -> Settings:
    key = tmp_path / "key"
    key.write_text(SECRET)
    key.chmod(0o600)
    destinations = {"study": {"type": "folder", "path": str(tmp_path), "policy": "research"}}
    return Settings(postgres=Postgres(dsn=postgres), destinations=destinations, deid=Deid(key_path=str(key), policies="/nonexistent"))


def keep(settings: Settings, *deliveries: Delivery) -> None:
    """Have the index know objects."""
    with connect(settings.postgres.dsn) as connection:
        for n, each in enumerate(deliveries):
            ref = each.object
            connection.execute(
                "INSERT INTO instance (sop_instance_uid, series_instance_uid, study_instance_uid, sop_class_uid, transfer_syntax_uid,"
                " instance_number, bucket, object_key, size_bytes, sha256, receipt, received_at)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 'r', now())",
                (
                    *(each.sop_instance_uid, each.series_instance_uid, each.study_instance_uid, each.sop_class_uid),
                    *(each.transfer_syntax_uid, str(n), ref.bucket, ref.key, ref.size_bytes, ref.sha256),
                ),
            )


def merge(settings: Settings, old: str, new: str, issuer: str = "NORTH") -> None:
    survivor = Patient(key="b", ids=(Identifier(value=new, issuer=issuer),))
    with connect(settings.postgres.dsn) as connection:
        for key, value, into in (("a", old, "b"), ("b", new, None)):
            connection.execute(
                "INSERT INTO patient (patient_key, version, patient_id, merged_into, detail, said_at, changed_at)"
                " VALUES (%s, 1, %s, %s, %s, now(), now())",
                (key, value, into, msgspec.json.encode(survivor).decode()),
            )
            connection.execute("INSERT INTO patient_id (value, issuer, patient_key) VALUES (%s, %s, %s)", (value, issuer, key))


def previewed(settings: Settings, store: MemoryStore, study: str = "1.2.3.1", way: Showing | None = None) -> StudyPreview:
    anonymizer = anonymizer_of("study", "research", settings)
    return preview_of(study, settings, store, anonymizer, way or Showing(full=package("processors.anonymize.offline").preview_of))


def after(found: StudyPreview, keyword: str) -> list[str | None]:
    return [action.after for each in found.series for action in each.actions if action.keyword == keyword]


def a_study(settings: Settings, store: MemoryStore) -> None:
    others: tuple[dict[str, Any], ...] = (
        {"SOPInstanceUID": "1.2.3.7"},
        {"SOPInstanceUID": "1.2.3.8", "SeriesInstanceUID": "1.2.3.3"},
        {"SOPInstanceUID": "1.2.3.9", "BurnedInAnnotation": "YES"},
    )
    keep(settings, stored(store), *(stored(store, **each) for each in others))


def test_each_series_is_shown_by_its_first_instance_and_each_object_has_a_line(settings: Settings) -> None:
    store = MemoryStore()
    a_study(settings, store)

    found = previewed(settings, store)

    assert [each.path for each in found.series] == ["1.2.3.6", "1.2.3.8"]
    assert {each.sop_instance_uid: each.reason for each in found.objects} == {
        "1.2.3.6": "",
        "1.2.3.7": "",
        "1.2.3.8": "",
        "1.2.3.9": "risky-kind",
    }
    assert all(each.leaves_as.startswith("2.25.") for each in found.objects if not each.reason)


def test_a_merge_counts_in_what_is_shown(settings: Settings) -> None:
    store = MemoryStore()
    a_study(settings, store)
    before = after(previewed(settings, store), "PatientID")

    merge(settings, "P1234567", "NEW1")

    assert after(previewed(settings, store), "PatientID") != before


def test_of_a_patient_who_opted_out_nothing_would_leave(settings: Settings) -> None:
    store = MemoryStore()
    a_study(settings, store)
    add(settings.postgres.dsn, "opt-out", [("P1234567", "NORTH")], "research", "me", "")

    assert {each.reason for each in previewed(settings, store).objects} == {"opted-out"}


def test_an_object_that_the_store_lost_has_a_line_that_says_so(settings: Settings) -> None:
    store = MemoryStore()
    lost = stored(store)
    keep(settings, lost)
    store.delete(lost.object.bucket, lost.object.key)

    (line,) = previewed(settings, store).objects

    assert line.reason == "object-missing"


def test_the_page_is_the_owners_alone_and_the_command_ends_as_refused(settings: Settings, tmp_path: Path) -> None:
    store = MemoryStore()
    a_study(settings, store)
    file = tmp_path / "page.html"

    way = Showing(
        full=package("processors.anonymize.offline").preview_of, page=lambda found, _: str(package("processors.anonymize.page").page(found))
    )
    with pytest.raises(SystemExit) as ended:
        show(previewed(settings, store, way=way), file, way.pages, changed=False, json=False)

    assert ended.value.code == 4
    assert file.stat().st_mode & 0o777 == 0o600
    assert "Vandermeulen" in file.read_text()
    assert "3 of 4 objects would leave, 1 would be held." in file.read_text()
    assert "<li>1 held, risky-kind: " in file.read_text()


def test_a_study_of_which_nothing_is_kept_is_named(settings: Settings) -> None:
    with pytest.raises(NotFound, match=r"1\.2\.9"):
        previewed(settings, MemoryStore(), "1.2.9")


def test_a_uid_is_a_study_unless_a_file_has_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert is_stored("1.2.3")
    assert not is_stored("slice.dcm")
    (tmp_path / "1.2.3").touch()
    assert not is_stored("1.2.3")
