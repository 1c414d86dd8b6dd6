"""Studies on a whole Hilum: what comes twice, corrected, sent back or rejected, and when a study is complete."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import KeyObjectSelectionDocumentStorage, RLELossless, generate_uid

from bench.running import RunningHilum, Servers, running_hilum
from bench.wire import RawReceiver, RawSender
from hilum.part10 import data_set_offset
from hilum.synthetic import ct_study
from hilum.testing import eventually

pytestmark = pytest.mark.system

SETTINGS = """
[senders.CORRECTS]
corrections = "take"
[senders.QUICK.completeness]
idle_s = 1.0
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, servers: Servers) -> Iterator[RunningHilum]:
    receiver = RawReceiver()
    with running_hilum(tmp_path_factory.mktemp("hilum"), receiver.port, SETTINGS, images_only=True, servers=servers()) as found:
        yield found
    receiver.close()


def slices(count: int, patient: str) -> list[FileDataset]:
    return list(ct_study(count, rows=32, columns=32, patient=patient))


def send(running: RunningHilum, objects: Sequence[FileDataset], sender: str = "CT1") -> str:
    """Send objects as `sender`, encoded as their File Meta says; their StudyInstanceUID."""
    kinds = [(str(each.SOPClassUID), str(each.file_meta.TransferSyntaxUID)) for each in objects]
    raw = RawSender(running.port, kinds, calling=sender)
    for each, (sop_class, syntax) in zip(objects, kinds, strict=True):
        buffer = BytesIO()
        each.save_as(buffer, enforce_file_format=True)
        part10 = buffer.getvalue()
        assert raw.send(sop_class, str(each.SOPInstanceUID), syntax, part10[data_set_offset(part10) :]) == 0x0000
    raw.release()
    return str(objects[0].StudyInstanceUID)


def outcomes(running: RunningHilum, study: str, count: int) -> Counter[str]:
    """How often each outcome is among the arrivals of a study, once there are `count` and none is undecided."""

    def decided() -> list[str]:
        found = [outcome for (outcome,) in running.rows("SELECT outcome FROM v_receipt WHERE study_instance_uid = %s", study)]
        return [] if "undecided" in found or len(found) < count else found

    return Counter(eventually(decided, what="a decision on everything"))


def state(running: RunningHilum, study: str) -> tuple[Any, ...]:
    [found] = running.rows("SELECT state, revision, reason, instance_count FROM v_study WHERE study_instance_uid = %s", study) or [()]
    return tuple(found)


def a_note(images: Sequence[Dataset], code: str) -> FileDataset:
    """A rejection note of these images."""
    note = copy.deepcopy(slices(1, str(images[0].PatientID))[0])
    del note.PixelData, note.Rows, note.Columns
    note.SOPClassUID = note.file_meta.MediaStorageSOPClassUID = KeyObjectSelectionDocumentStorage
    note.SOPInstanceUID = note.file_meta.MediaStorageSOPInstanceUID = generate_uid(prefix=None)
    note.StudyInstanceUID, note.SeriesInstanceUID, note.Modality = images[0].StudyInstanceUID, generate_uid(prefix=None), "KO"
    title, evidence, series = Dataset(), Dataset(), Dataset()
    title.CodeValue, title.CodingSchemeDesignator, title.CodeMeaning = code, "DCM", "Rejected"
    series.SeriesInstanceUID, series.ReferencedSOPSequence = images[0].SeriesInstanceUID, []
    for image in images:
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
        series.ReferencedSOPSequence.append(reference)
    evidence.StudyInstanceUID, evidence.ReferencedSeriesSequence = images[0].StudyInstanceUID, [series]
    note.ConceptNameCodeSequence, note.CurrentRequestedProcedureEvidenceSequence = [title], [evidence]
    return note


def test_the_same_image_compressed_is_a_duplicate_and_nothing_is_sent_twice(running: RunningHilum) -> None:
    images = slices(2, "STUDY01")
    study = send(running, images)
    for image in images:
        image.compress(RLELossless, generate_instance_uid=False)
    send(running, images, "CT2")

    assert outcomes(running, study, 4) == {"deliver": 2, "duplicate": 2}
    assert running.come_to_rest().unaccounted == 0  # the ledger has read all of these decisions, too
    assert running.rows("SELECT count(*) FROM delivery WHERE study_instance_uid = %s", study) == [(4,)]


def test_a_corrected_header_waits_for_a_person_or_takes_the_place_of_the_first_as_its_sender_s_settings_say(running: RunningHilum) -> None:
    first, second = slices(2, "STUDY02")
    study = send(running, [first, second])
    outcomes(running, study, 2)
    first.SeriesDescription = second.SeriesDescription = "Corrected"
    send(running, [first])
    send(running, [second], "CORRECTS")

    assert outcomes(running, study, 4) == {"deliver": 2, "quarantined": 1, "corrected": 1}
    [(reason, sentence)] = running.rows("SELECT reason, sentence FROM v_quarantine WHERE study_instance_uid = %s", study)
    assert reason == "instance-corrected"
    assert "(0008,103E)" in sentence


def test_other_pixels_under_one_uid_wait_for_a_person(running: RunningHilum) -> None:
    [image] = slices(1, "STUDY03")
    study = send(running, [image])
    image.PixelData = bytes(len(image.PixelData))
    send(running, [image])

    assert outcomes(running, study, 2) == {"deliver": 1, "quarantined": 1}
    assert running.rows("SELECT reason FROM v_quarantine WHERE study_instance_uid = %s", study) == [("instance-conflict",)]


def test_what_the_destination_sends_back_is_returned(running: RunningHilum) -> None:
    [image] = slices(1, "STUDY04")
    study = send(running, [image])
    outcomes(running, study, 1)
    image.PatientName = "Coerced^Name"
    send(running, [image], "PACS")

    assert outcomes(running, study, 2) == {"deliver": 1, "returned": 1}


def test_a_study_is_complete_after_a_silence_and_again_after_what_comes_later(running: RunningHilum) -> None:
    first, second = slices(2, "STUDY05")
    study = send(running, [first], "QUICK")
    eventually(lambda: state(running, study) == ("complete", 1, "idle", 1), what="the first revision")
    send(running, [second], "QUICK")
    eventually(lambda: state(running, study) == ("complete", 2, "idle", 2), what="the second revision")


def test_a_person_says_that_a_study_is_complete(running: RunningHilum) -> None:
    study = send(running, slices(2, "STUDY06"))
    outcomes(running, study, 2)
    eventually(lambda: state(running, study)[:2] == ("open", 0), what="the open study")

    done = running.command("study", "complete", study, "--why", "test")
    assert "Revision 1 is complete with 2 instances." in done.stdout
    eventually(lambda: state(running, study) == ("complete", 1, "by-hand", 2), what="the completion")
    refused = running.command("study", "complete", study, "--json", check=False)
    assert refused.returncode == 4
    assert not json.loads(refused.stdout)["outcome"]["done"]
    assert running.command("study", "complete", "1.2.3.4", check=False).returncode == 3
    [shown] = json.loads(running.command("study", "show", study, "--json").stdout)
    assert (shown["summary"]["state"], shown["summary"]["revision"], shown["summary"]["reason"]) == ("complete", 1, "by-hand")


def test_a_rejection_note_withdraws_what_is_here_and_what_comes_later(running: RunningHilum) -> None:
    first, second = slices(2, "STUDY07")
    study = send(running, [first])
    outcomes(running, study, 1)
    send(running, [a_note([first, second], "113001")])
    eventually(lambda: running.rows("SELECT count(*) FROM withdrawn WHERE study_instance_uid = %s", study) == [(2,)], what="the withdrawal")
    send(running, [second])

    assert outcomes(running, study, 3) == {"deliver": 1, "withdrawn": 2}


FAILING = """
[[rules]]
name = "everything"
to = ["archive", "pacs"]
[[rules]]
name = "ratio"
on = "study"
study = "instances / (instances - 7) > 0"
to = ["pacs"]
"""


def test_a_study_of_which_a_rule_fails_is_seen_and_goes_on_with_the_rule_that_is_applied_in_its_place(
    running: RunningHilum, tmp_path: Path
) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(FAILING)
    running.command("apply", "-f", rules)
    study = send(running, slices(7, "STUDY08"), "QUICK")
    waits = "SELECT waits_because FROM v_study WHERE study_instance_uid = %s AND waits_because IS NOT NULL"
    [(says,)] = eventually(lambda: running.rows(waits, study), what="the failing rule")

    assert "Rule 'ratio' could not be evaluated on a complete study" in says
    [stuck] = json.loads(running.command("status", "--json", check=False).stdout)["stuck"]
    assert (stuck["study_instance_uid"], stuck["says"]) == (study, says)
    assert "Waits because" in running.command("study", "show", study).stdout

    # A revision may have been complete before: with fewer instances, where a second went by between two of them.
    revision = state(running, study)[1] + 1
    rules.write_text(FAILING.replace("(instances - 7)", "series"))
    running.command("apply", "-f", rules)
    eventually(lambda: state(running, study) == ("complete", revision, "idle", 7), what="the completion")  # by itself: in ten minutes
    assert running.rows(waits, study) == []


def test_everything_is_accounted_for(running: RunningHilum) -> None:
    """The last of this module: whatever the others did."""
    account = running.come_to_rest()

    assert (account.unaccounted, account.details) == (0, ())
    parts = account.routed + account.unrouted + account.duplicates + account.quarantined + account.waiting
    assert account.received == parts + account.sent_back + account.ignored + account.withdrawn
