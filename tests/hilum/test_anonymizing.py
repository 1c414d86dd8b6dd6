"""What goes to a destination with a policy is de-identified, or does not go."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from io import BytesIO
from mmap import mmap
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct
from msgspec.structs import replace
from pydicom import Dataset, dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian

from hilum.anonymizing import NotAnonymized, Sealed, SurvivorOf, anonymizer_of, package, policy_table
from hilum.bundle import Bundle, in_force
from hilum.control_events import ConfigApplied
from hilum.database.persons import Standing
from hilum.deid_sections import Deid
from hilum.dicom.edits import Edits
from hilum.edited import MadePart10, part10_of
from hilum.errors import HilumError, Misconfigured, TryAgain
from hilum.identity import Authorities
from hilum.layout import Layout
from hilum.order_events import Identifier, Patient
from hilum.part10 import IN_MEMORY_BYTES, data_set_offset
from hilum.runtime.delivery.cleans import cleans_of, refuse_uncleaned, with_what_left
from hilum.runtime.delivery.settled import settled_event
from hilum.settings import Settings
from hilum.sink import Delivery, Settled, sink_of, sinks_of
from hilum.testing import MemoryStore, a_delivery
from tests.processors.anonymize.objects import part10
from tests.processors.anonymize.test_pixels import an_image

#: No file of any site.
NONE = Path("/nonexistent")
SECRET = "".join(f"{n:02x}" for n in range(1, 33))
CT = "1.2.840.10008.5.1.4.1.1.2"
#: An image of two by one.
PIXELS: dict[str, Any] = {
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "Rows": 1,
    "Columns": 2,
    "BitsAllocated": 8,
    "BitsStored": 8,
    "HighBit": 7,
    "PixelRepresentation": 0,
    "PixelData": b"\1\2",
}


def key_file(folder: Path) -> Path:
    """A file with a key of de-identification that only its owner may read."""
    file = folder / "key"
    file.write_text(SECRET)
    file.chmod(0o600)
    return file


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return key_file(tmp_path)


@pytest.fixture
def settings(key: Path, tmp_path: Path) -> Settings:
    destinations = {"study": {"type": "folder", "path": str(tmp_path), "policy": "research"}}
    return Settings(destinations=destinations, deid=Deid(key_path=str(key), policies=str(NONE)))


def stored(store: MemoryStore, **more: Any) -> Delivery:
    header: dict[str, Any] = {
        "SOPClassUID": CT,
        "SOPInstanceUID": "1.2.3.6",
        "StudyInstanceUID": "1.2.3.1",
        "SeriesInstanceUID": "1.2.3.2",
        "StudyDate": "20240229",
        "StudyTime": "101112",
        "Modality": "CT",
        "AccessionNumber": "A12345",
        "PatientName": "Vandermeulen^Josefine",
        "PatientID": "P1234567",
        "IssuerOfPatientID": "NORTH",
        "PatientBirthDate": "19500102",
        "PatientSex": "F",
        "StudyDescription": "Thorax",
        **PIXELS,
    }
    return a_delivery(store, destination="study", **{**header, **more})


class Known(Struct):
    """What the ledger knows of patients."""

    survivor_of: SurvivorOf
    stands: Standing = Standing(opted_out=False, consented=False)
    kept: list[Sealed] = []
    named: list[Identifier] = []
    made_here: tuple[str, ...] = ()

    def survivor(self, patient: Identifier, authorities: Authorities) -> Patient | None:
        return self.survivor_of([patient])

    def standing(self, patient: Identifier, project: str, survivor: Patient | None, authorities: Authorities) -> Standing:
        return self.stands

    def studies_made_here(self, study_instance_uids: Sequence[str]) -> Collection[str]:
        return [uid for uid in study_instance_uids if uid in self.made_here]

    def name(self, study_instance_uid: str, ids: Sequence[Identifier]) -> None:
        self.named.extend(ids)

    def keep(self, sealed: Sequence[Sealed]) -> None:
        self.kept.extend(sealed)


def going(
    settings: Settings,
    delivery: Delivery,
    survivor_of: SurvivorOf = lambda _ids: None,
    stands: Standing = Standing(opted_out=False, consented=False),  # noqa: B008  # frozen
) -> Delivery:
    cleans = cleans_of("study", sink_of("study", settings.destinations["study"]), settings)
    assert cleans is not None
    return cleans.of([delivery], Known(survivor_of, stands))[0]


def sent(settings: Settings, store: MemoryStore, delivery: Delivery, **more: Any) -> bytes:
    return part10_of(store, going(settings, delivery, **more)).file()


def published(settings: Settings, **policies: dict[str, object]) -> Settings:
    applied = ConfigApplied(version="v", destinations=settings.destinations, rules=(), policies=policies, applied_at=datetime.now(UTC))
    return in_force(replace(settings, destinations={}), Bundle(applied=applied, offset=0))


def test_what_leaves_names_nobody_and_has_the_uids_that_its_delivery_tells_of(settings: Settings) -> None:
    store = MemoryStore()
    delivery = stored(store)
    leaving = going(settings, delivery)

    whole = part10_of(store, leaving).file()

    assert b"Vandermeulen" not in whole
    assert b"P1234567" not in whole
    ds = dcmread(BytesIO(whole))
    assert (ds.SOPInstanceUID, ds.StudyInstanceUID) == (leaving.sop_instance_uid, leaving.study_instance_uid)
    assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID != delivery.sop_instance_uid
    assert leaving.origin == delivery
    assert whole == sent(settings, store, delivery)


def test_what_becomes_large_is_not_kept_in_memory(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "masked.toml").write_text("[[masks]]\nboxes = [[0, 0, 1, 1]]\n")
    destinations = {"study": {**settings.destinations["study"], "policy": "masked"}}
    settings = replace(settings, destinations=destinations, deid=replace(settings.deid, policies=str(tmp_path)))
    ds = an_image(3000, 3000, PixelData=bytes(9_000_000))
    whole = part10(ds, DeflatedExplicitVRLittleEndian)
    store = MemoryStore()
    delivery = stored(
        store,
        data_set=whole[data_set_offset(whole) :],
        transfer_syntax_uid=DeflatedExplicitVRLittleEndian,
        **{keyword: str(ds[keyword].value) for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")},
    )
    leaving = part10_of(store, going(settings, delivery))

    assert len(whole) < 20_000
    assert leaving.size_bytes
    assert isinstance(leaving, MadePart10)
    assert "Painted over in every frame" in leaving.says
    with leaving.mapped() as (made, _):
        assert isinstance(made, mmap)
    assert leaving.size_bytes == len(leaving.file()) == len(b"".join(leaving.pieces(2**20))) > 9_000_000
    assert dcmread(BytesIO(leaving.file())).SOPInstanceUID == going(settings, delivery).sop_instance_uid


def test_a_large_object_is_de_identified_as_well(settings: Settings) -> None:
    store = MemoryStore()
    large = {"Rows": 3000, "Columns": 3000, "PixelData": bytes(9_000_000)}
    delivery = stored(store, **large)

    whole = sent(settings, store, delivery)

    assert delivery.object.size_bytes > IN_MEMORY_BYTES
    assert b"Vandermeulen" not in whole
    assert dcmread(BytesIO(whole)).SOPInstanceUID == going(settings, delivery).sop_instance_uid


def test_what_left_is_told_with_its_digest_and_the_event_does_not_tell_the_new_uid(settings: Settings) -> None:
    store = MemoryStore()
    leaving = going(settings, stored(store))
    whole = part10_of(store, leaving).file()

    settled = with_what_left(Settled(state="delivered"), leaving, lambda _: None)
    event = settled_event(leaving, settled, datetime.now(UTC))

    left = settled.deidentified
    assert left is not None
    assert left.sha256 == sha256(whole[data_set_offset(whole) :]).hexdigest()
    assert settled.sent_as == left.sop_instance_uid == leaving.sop_instance_uid
    assert (event.policy, event.policy_version, event.key_id) == ("research", left.policy_version, left.key_id)
    assert (event.sop_instance_uid, event.sent_as) == ("1.2.3.6", "")
    assert leaving.sop_instance_uid not in str(event)


def test_a_path_has_neither_a_uid_nor_the_digest_of_the_original(settings: Settings) -> None:
    store = MemoryStore()
    delivery = stored(store)
    leaving = going(settings, delivery)

    path = Layout("{StudyInstanceUID}/{PatientID}/{sha256}").path(leaving, part10_of(store, leaving))

    assert delivery.object.sha256 not in path
    assert "1.2.3.1" not in path.split("/")[0]
    assert "P1234567" not in path


def test_edits_come_first_and_what_they_replaced_is_looked_for(settings: Settings) -> None:
    store = MemoryStore()
    before = stored(store, PatientID="WRONG999")
    edits = Edits(values={"PatientID": "P1234567"}, at=datetime.now(UTC), says="of its order O1")

    edited, right = sent(settings, store, replace(before, edits=edits)), sent(settings, store, stored(store, SOPInstanceUID="1.2.3.7"))

    assert dcmread(BytesIO(edited)).PatientID == dcmread(BytesIO(right)).PatientID
    assert b"WRONG999" not in edited


def test_after_a_merge_an_object_is_the_surviving_patients(settings: Settings) -> None:
    store = MemoryStore()
    survivor = Patient(key="k", ids=(Identifier(value="P1234567", issuer="NORTH"),), name="Other^Name")
    asked: list[Sequence[Identifier]] = []

    def survivor_of(ids: Sequence[Identifier]) -> Patient:
        asked.append(ids)
        return survivor

    prior = sent(settings, store, stored(store, PatientID="OLD77777", SOPInstanceUID="1.2.3.8"), survivor_of=survivor_of)

    assert asked == [[Identifier(value="OLD77777", issuer="NORTH")]]
    assert dcmread(BytesIO(prior)).PatientID == dcmread(BytesIO(sent(settings, store, stored(store)))).PatientID


def test_whoever_the_object_names_besides_is_asked_for_too(settings: Settings) -> None:
    store, asked = MemoryStore(), list[Identifier]()
    other = Dataset()
    other.PatientID, other.IssuerOfPatientID = "HIS 5", "HIS"
    delivery = stored(store, OtherPatientIDs=["X1", "X2"], OtherPatientIDsSequence=[other])

    sent(settings, store, delivery, survivor_of=asked.extend)

    assert [(each.value, each.issuer) for each in asked] == [("P1234567", "NORTH"), ("X1", ""), ("X2", ""), ("HIS 5", "HIS")]


def test_whoever_it_named_before_it_was_set_right_is_asked_for_too(settings: Settings) -> None:
    store, asked = MemoryStore(), list[Identifier]()
    edits = Edits(values={"PatientID": "RIGHT 1"}, at=datetime.now(UTC))

    sent(settings, store, replace(stored(store), edits=edits), survivor_of=asked.extend)

    assert {each.value for each in asked[1:]} == {"P1234567"}
    assert asked[0].value == "RIGHT 1"


def test_an_object_that_names_somebody_who_opted_out_stays(settings: Settings) -> None:
    class OneOptedOut(Known):
        def standing(self, patient: Identifier, project: str, survivor: Patient | None, authorities: Authorities) -> Standing:
            return Standing(opted_out=patient.value == "X2", consented=False)

    store = MemoryStore()
    cleans = cleans_of("study", sink_of("study", settings.destinations["study"]), settings)
    assert cleans is not None
    (leaving,) = cleans.of([stored(store, OtherPatientIDs=["X1", "X2"])], OneOptedOut(lambda _ids: None))

    with pytest.raises(NotAnonymized, match="opted out"):
        part10_of(store, leaving).file()


def test_what_stands_for_nobody_beside_a_patient_holds_if_an_opt_out_names_it(settings: Settings) -> None:
    class Nobody(Known):
        def standing(self, patient: Identifier, project: str, survivor: Patient | None, authorities: Authorities) -> Standing:
            named = patient.value == "UNKNOWN"
            return Standing(opted_out=named or patient.value == "0", consented=False, unnamed=patient.value == "0")

    store = MemoryStore()
    cleans = cleans_of("study", sink_of("study", settings.destinations["study"]), settings)
    assert cleans is not None

    def leaves(**attributes: Any) -> bytes:
        return part10_of(store, cleans.of([stored(store, **attributes)], Nobody(lambda _ids: None))[0]).file()

    assert leaves(OtherPatientIDs=["X1", "0"])
    for attributes in ({"OtherPatientIDs": ["X1", "UNKNOWN"]}, {"PatientID": "0"}):
        with pytest.raises(NotAnonymized, match="opted out"):
            leaves(**attributes)


def test_while_nobody_knows_of_merges_nothing_leaves(settings: Settings) -> None:
    def away(_ids: Sequence[Identifier]) -> None:
        raise TryAgain("PostgreSQL is away.")

    store = MemoryStore()
    with pytest.raises(TryAgain):
        sent(settings, store, stored(store), survivor_of=away)


@pytest.mark.parametrize(
    "attributes",
    [
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.6.1"},  # ultrasound
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1"},  # PDF
        {"SOPClassUID": "1.2.3.4"},  # private
        {"BurnedInAnnotation": "YES"},
        {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]},
        {"ConversionType": "SD"},
    ],
)
def test_what_cannot_be_cleaned_is_held_in_words_without_values(settings: Settings, attributes: dict[str, object]) -> None:
    store = MemoryStore()
    with pytest.raises(NotAnonymized) as held:
        sent(settings, store, stored(store, **attributes))

    assert "Vandermeulen" not in str(held.value)
    assert held.value.fix


def test_without_its_package_a_destination_does_not_begin() -> None:
    with pytest.raises(Misconfigured) as stop:
        package("processors.anonymize.that_was_never_installed")

    assert stop.value.reason == "anonymizer-missing"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda file: file.unlink(), "key-missing"),
        (lambda file: file.chmod(0o644), "key-open"),
        (lambda file: file.write_text("secret"), "key-malformed"),
    ],
)
def test_without_its_key_a_destination_neither_begins_nor_goes_on(settings: Settings, key: Path, spoil: object, reason: str) -> None:
    cleans = cleans_of("study", sink_of("study", settings.destinations["study"]), settings)
    assert cleans is not None
    cleans.renew()
    assert callable(spoil)
    spoil(key)

    for act in (cleans.renew, lambda: anonymizer_of("study", "research", settings)):
        with pytest.raises(Misconfigured) as stop:
            act()
        assert stop.value.reason == reason


def test_a_key_that_is_not_named_is_asked_for(settings: Settings) -> None:
    with pytest.raises(Misconfigured) as stop:
        anonymizer_of("study", "research", replace(settings, deid=Deid()))

    assert stop.value.reason == "key-not-named"


def test_a_key_that_was_put_into_force_is_used_from_then_on(settings: Settings, key: Path) -> None:
    anonymizer = anonymizer_of("study", "research", settings)
    key.rename(key.with_name("old"))
    key.write_text(SECRET[2:] + "77")
    key.chmod(0o600)

    assert anonymizer.current().key_id != anonymizer.key_id


def test_a_published_destination_has_the_published_policy_whatever_files_say(settings: Settings, tmp_path: Path) -> None:
    table = policy_table("research", NONE)
    (tmp_path / "research.toml").write_text("options = []")
    own = replace(settings, deid=replace(settings.deid, policies=str(tmp_path)))

    assert anonymizer_of("study", "research", published(own, research=table)).version == table["version"]
    assert anonymizer_of("study", "research", own).version != table["version"]


def test_a_published_destination_without_its_policy_does_not_begin(settings: Settings) -> None:
    with pytest.raises(Misconfigured) as stop:
        anonymizer_of("study", "research", published(settings))

    assert stop.value.reason == "policy-not-published"


def test_a_policy_that_this_release_would_carry_out_otherwise_is_not_used(settings: Settings) -> None:
    table = {**policy_table("research", NONE), "version": "0" * 12}

    with pytest.raises(Misconfigured) as stop:
        anonymizer_of("study", "research", published(settings, research=table))

    assert stop.value.reason == "policy-of-another-release"


def test_an_object_that_was_not_de_identified_does_not_pass_the_last_door(settings: Settings) -> None:
    store = MemoryStore()
    delivery = stored(store)
    sink = sink_of("study", settings.destinations["study"])

    with pytest.raises(HilumError):
        refuse_uncleaned(sink, delivery)
    refuse_uncleaned(sink, going(settings, delivery))


@pytest.mark.parametrize("table", [{"type": "archive", "policy": "basic"}, {"type": "hl7", "host": "h", "port": 1, "policy": "basic"}])
def test_a_destination_for_which_nothing_is_de_identified_takes_no_policy(table: dict[str, object]) -> None:
    with pytest.raises(Misconfigured, match="nothing is de-identified"):
        sink_of("other", table)


def test_what_is_de_identified_is_not_compressed_with_loss() -> None:
    home: dict[str, object] = {"type": "dicom", "host": "h", "port": 1, "aet": "A", "lossy": "jpeg-2000", "lossy_ratio": 10}
    with pytest.raises(Misconfigured, match="with loss"):
        sink_of("home", {**home, "policy": "basic"})
    with pytest.raises(Misconfigured, match="with loss"):
        sinks_of(Settings(destinations={"home": home, "all": {"type": "group", "members": ["home"], "policy": "basic"}}))


def test_a_true_date_is_not_in_the_paths_of_what_is_de_identified() -> None:
    share: dict[str, object] = {"type": "folder", "path": "/srv/share", "layout": "{received_date}/{SOPInstanceUID}.dcm"}
    assert sink_of("share", share)
    with pytest.raises(Misconfigured, match="tells a true date") as refused:
        sink_of("share", {**share, "policy": "research"})
    assert "{StudyDate}" in refused.value.fix
    with pytest.raises(Misconfigured, match="tells a true date"):
        sinks_of(Settings(destinations={"share": share, "all": {"type": "group", "members": ["share"], "policy": "basic"}}))


def test_a_member_with_a_policy_is_not_reached_through_a_group_without(settings: Settings) -> None:
    group = {"type": "group", "members": ["study"]}

    with pytest.raises(Misconfigured, match="member"):
        sinks_of(replace(settings, destinations={**settings.destinations, "all": group}))
    assert sinks_of(replace(settings, destinations={**settings.destinations, "all": {**group, "policy": "research"}}))


def test_what_is_of_a_patient_who_opted_out_does_not_leave(settings: Settings) -> None:
    store = MemoryStore()
    with pytest.raises(NotAnonymized) as held:
        sent(settings, store, stored(store), stands=Standing(opted_out=True, consented=True))

    assert held.value.reason == "opted-out"


def test_where_consent_is_asked_for_nothing_leaves_without(settings: Settings) -> None:
    store = MemoryStore()
    table = {**settings.destinations["study"], "patients": "consent"}
    asks = replace(settings, destinations={"study": table})
    with pytest.raises(NotAnonymized) as held:
        sent(asks, store, stored(store))

    assert held.value.reason == "no-consent"
    assert sent(asks, store, stored(store), stands=Standing(opted_out=False, consented=True))
