"""`hilum deid`: policies, keys, previews and files."""

from __future__ import annotations

import csv
import json
import re
import shlex
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from typer.testing import CliRunner, Result

from hilum.anonymizing import package, policy_table
from hilum.cli import app
from hilum.cli.deid_manifest import watched
from hilum.database import connect
from hilum.deid_sections import Deid
from hilum.errors import HilumError, Misconfigured, NotFound
from hilum.testing import eventually
from processors.anonymize.offline import LARGE_BYTES, preview, run, verify
from tests.hilum.cli.test_deliver_command import error_of
from tests.hilum.test_anonymizing import PIXELS
from tests.processes import children_of, ended
from tests.processors.anonymize.objects import an_object, part10


class Site:
    """A machine with a settings file, a key and originals."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.key, self.originals, self.out = folder, folder / "key", folder / "in", folder / "out"
        self.policies = folder / "policies"
        for each in (self.originals, self.policies):
            each.mkdir()
        self.config = folder / "hilum.toml"
        self.config.write_text(f'[deid]\nkey_path = "{self.key}"\npolicies = "{self.policies}"\n')

    def run(self, *arguments: object, json: bool = True) -> Result:
        words = ["deid", *map(str, arguments), "--config", str(self.config), *["--json"] * json]
        return CliRunner().invoke(app, words)

    def connect_to(self, dsn: str) -> None:
        services = f'[postgres]\ndsn = "{dsn}"\n[kafka]\nbootstrap = "127.0.0.1:1"\n[s3]\nendpoint = "http://127.0.0.1:1"\n'
        self.config.write_text(services)

    def put(self, name: str, **attributes: Any) -> Path:
        file = self.originals / name
        file.write_bytes(part10(an_object(PatientName="Vandermeulen^Josefine", PatientID="P1234567", **PIXELS, **attributes)))
        return file


def counted(result: Result) -> dict[str, int]:
    """The states that occurred, and how often."""
    return {state: count for state, count in json.loads(result.stdout)["counts"].items() if count}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path)
    assert made.run("keys", "make").exit_code == 0
    return made


def test_a_key_that_is_made_is_the_owners_alone_and_stays(site: Site) -> None:
    assert site.key.stat().st_mode & 0o777 == 0o600
    before = site.key.read_text()

    assert site.run("keys", "make").exit_code == 0
    assert site.key.read_text() == before


def test_a_rotation_keeps_the_old_key_and_asks_first(site: Site) -> None:
    (first,) = json.loads(site.run("keys", "list").stdout)["keys"]

    assert site.run("keys", "rotate").exit_code != 0  # nobody answers
    assert json.loads(site.run("keys", "rotate", "--dry-run").stdout) == {"old": first["id"], "dry_run": True}
    assert len(json.loads(site.run("keys", "list").stdout)["keys"]) == 1
    said = json.loads(site.run("keys", "rotate", "--yes").stdout)

    listed = json.loads(site.run("keys", "list").stdout)["keys"]
    assert [(each["id"], each["in_force"]) for each in listed] == [(said["new"], True), (first["id"], False)]


def test_policies_are_listed_with_what_is_wrong(site: Site) -> None:
    (site.policies / "mine.toml").write_text('options = ["retain-uid"]\n[attributes]\nPatientNam = "keep"\n')

    listed = {each["name"]: each for each in json.loads(site.run("policies", "list").stdout)["policies"]}
    lint = site.run("policies", "lint")

    assert {"basic", "research", "mine"} <= set(listed)
    assert "retain-uids" in listed["mine"]["wrong"]
    assert lint.exit_code == 1
    assert "PatientNam" in lint.stdout


def test_lint_says_that_heads_are_held_where_faces_are_to_be_taken_out_and_nothing_does(site: Site) -> None:
    (site.policies / "mine.toml").write_text('options = ["clean-recognizable-visual-features"]\n')

    lint = site.run("policies", "lint")

    assert lint.exit_code == 0
    assert "heads in thin slices are held" in json.loads(lint.stdout)["notes"]["mine"][0]


def test_files_are_written_by_their_new_uids_and_what_is_held_is_not(site: Site) -> None:
    site.put("Vandermeulen.dcm")
    site.put("burned", SOPInstanceUID="1.2.3.4.5.7", BurnedInAnnotation="YES")
    (site.originals / "notes.txt").write_text("not DICOM")

    result = site.run("run", site.originals, "--policy", "research", "--out", site.out, "--jobs", 1)

    assert result.exit_code == 4
    assert counted(result) == {"written": 1, "held": 1, "skipped": 1}
    (file,) = (each for each in site.out.rglob("*") if each.is_file())
    assert b"Vandermeulen" not in file.read_bytes()
    assert "Vandermeulen" not in str(file.relative_to(site.out))
    assert file.stem == dcmread(file).SOPInstanceUID


@pytest.mark.parametrize("jobs", [1, 2])
def test_files_with_one_uid_are_written_once_if_they_are_equal_and_else_not_at_all(site: Site, jobs: int) -> None:
    for name, uid, description in (("a", "1", "x"), ("b", "1", "x"), ("c", "2", "x"), ("d", "2", "y"), ("e", "3", "x")):
        site.put(name, SOPInstanceUID=f"1.2.3.4.5.{uid}", StudyDescription=description)

    result = site.run("run", site.originals, "-p", "basic", "-o", site.out, "-j", jobs)

    assert result.exit_code == 4
    states = {Path(each["path"]).name: each["state"] for each in json.loads(result.stdout)["files"]}
    assert states == {"a": "written", "b": "duplicate", "c": "conflict", "d": "conflict", "e": "written"}
    assert len([each for each in site.out.rglob("*") if each.is_file()]) == 2


def test_what_was_made_of_one_of_several_with_one_uid_is_held_against_none(site: Site) -> None:
    site.put("a")
    assert site.run("run", site.originals, "-p", "basic", "-o", site.out, "-j", 1).exit_code == 0
    site.put("b", StudyDescription="another")

    result = site.run("verify", site.out, "-p", "basic", "--originals", site.originals)

    assert result.exit_code == 1
    assert counted(result) == {"conflict": 1}


#: A run that goes no further than its first file.
_HELD_UP = """
import sys, time
from hilum.cli import deid_manifest, main

def watched(_, outcomes, count):
    next(outcomes)
    time.sleep(600)

deid_manifest.watched = watched
sys.argv[0] = "hilum"
main()
"""


def test_processes_of_a_run_end_with_it(site: Site) -> None:
    for n in range(3):
        site.put(f"{n}", SOPInstanceUID=f"1.2.3.4.5.{n}")
    words = ["deid", "run", site.originals, "-p", "basic", "-o", site.out, "-j", "2", "--config", site.config]
    running = subprocess.Popen([sys.executable, "-c", _HELD_UP, *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    started = eventually(lambda: children_of(running.pid) if any(site.out.rglob("*.dcm")) else [], what="it has written something")
    running.kill()
    running.wait()

    eventually(lambda: ended(started), what="its processes end")


def test_several_processes_give_what_one_gives(site: Site) -> None:
    for n in range(3):
        site.put(f"{n}", SOPInstanceUID=f"1.2.3.4.5.{n}")
    assert site.run("run", site.originals, "-p", "basic", "-o", site.out, "-j", 1).exit_code == 0
    assert site.run("run", site.originals, "-p", "basic", "-o", site.folder / "two", "-j", 2).exit_code == 0

    one, two = ({each.name: each.read_bytes() for each in folder.rglob("*.dcm")} for folder in (site.out, site.folder / "two"))
    assert one == two
    assert len(one) == 3


@pytest.mark.parametrize("spoil", ["gone", "open"])
def test_without_a_proper_key_nothing_is_written(site: Site, spoil: str) -> None:
    site.put("a")
    site.key.unlink() if spoil == "gone" else site.key.chmod(0o644)

    result = site.run("run", site.originals, "-p", "research", "-o", site.out)

    assert isinstance(result.exception, HilumError)
    assert not site.out.exists()


def test_what_was_left_in_a_file_is_found(site: Site) -> None:
    site.put("a")
    site.run("run", site.originals, "-p", "research", "-o", site.out, "-j", 1)
    clean = site.run("verify", site.out, "--originals", site.originals, "-p", "research")
    (file,) = site.out.rglob("*.dcm")
    ds = dcmread(file)
    ds.ImageComments = "seen with Josefine Vandermeulen"
    ds.save_as(file)

    found = site.run("verify", site.out, "--originals", site.originals, "-p", "research")

    assert (clean.exit_code, found.exit_code) == (0, 1)
    (told,) = json.loads(found.stdout)["files"]
    assert (told["state"], told["place"]) == ("found", "(0020,4000)")
    assert "Josefine" not in told["says"]


def test_a_manifest_leads_back_for_its_owner_alone_and_is_not_among_the_files(site: Site) -> None:
    file, manifest = site.put("a"), site.folder / "manifest.csv"
    site.put("burned", SOPInstanceUID="1.2.3.4.5.7", BurnedInAnnotation="YES")

    inside = site.run("run", site.originals, "-p", "research", "-o", site.out, "--manifest", site.out / "m.csv", "-j", 1)
    result = site.run("run", site.originals, "-p", "research", "-o", site.out, "--manifest", manifest, "-j", 1, json=False)

    lines = list(csv.DictReader(manifest.read_text().splitlines()))
    assert isinstance(inside.exception, HilumError)
    assert (lines[0]["file"], lines[0]["instance"]) == (str(file), dcmread(file).SOPInstanceUID)
    assert lines[0]["new_instance"] == Path(lines[0]["written"]).stem
    assert (lines[1]["state"], lines[1]["new_instance"]) == ("held", "")
    assert manifest.stat().st_mode & 0o777 == 0o600
    assert "leads from each file back" in result.stdout


def test_without_a_manifest_nothing_tells_the_old_uids(site: Site) -> None:
    file = site.put("a")

    said = site.run("run", site.originals, "-p", "research", "-o", site.out, "-j", 1).stdout

    assert dcmread(file).SOPInstanceUID not in said


def test_a_large_file_is_not_read_into_memory(site: Site) -> None:
    size_bytes = 2 * LARGE_BYTES
    pixels = {"Rows": 1024, "Columns": 1024, "NumberOfFrames": size_bytes >> 20, "PixelData": bytes(size_bytes)}
    file = site.originals / "a"
    file.write_bytes(part10(an_object(PatientName="A^B", PatientID="P1", **{**PIXELS, **pixels})))
    outgoing = package().Outgoing.of(policy_table("basic", site.policies), Deid(key_path=str(site.key), policies=str(site.policies)))
    tracemalloc.start()
    try:
        shown = preview(file, outgoing)
        (found,) = run([file], site.out, policy_table("basic", site.policies), Deid(key_path=str(site.key)), jobs=1)
        (looked,) = verify([Path(found.written)], [file], outgoing)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (found.state, looked.state) == ("written", "clean")
    assert Path(found.written).stat().st_size > size_bytes
    assert most < size_bytes / 4
    (pixels_before,) = (each.before for each in shown.actions if each.keyword == "PixelData")
    assert pixels_before == f"{size_bytes} bytes"


def test_a_file_that_cannot_be_read_fails_alone(site: Site) -> None:
    site.put("a")
    (site.originals / "b").symlink_to(site.folder)
    (site.originals / "c").symlink_to("/proc/self/mem")

    result = site.run("run", site.originals, "-p", "research", "-o", site.out, "-j", 1)

    assert json.loads(result.stdout)["counts"]["written"] == 1


def test_where_there_is_no_terminal_progress_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    assert watched("Looking", iter("abc"), 3, say_s=0) == ["a", "b", "c"]
    watched("Looking", iter("abc"), 3)

    said = capsys.readouterr()
    assert said.err.splitlines() == [f"Looking: {n} of 3 files" for n in (1, 2, 3)]
    assert said.out == ""


@pytest.mark.parametrize("command", ["run", "verify"])
def test_where_nothing_is_dicom_a_wrong_folder_does_not_look_like_success(site: Site, command: str) -> None:
    (site.originals / "t.txt").write_text("not DICOM")
    more = ["--out", site.out, "--jobs", 1] if command == "run" else ["--originals", site.originals]

    result = site.run(command, site.originals, "-p", "research", *more, json=False)

    assert result.exit_code == 3
    assert "Nothing there is DICOM" in result.stderr


def test_equal_lines_are_summed_up_and_all_in_json(site: Site) -> None:
    for n in range(13):
        site.put(f"{n:02}", SOPInstanceUID=f"1.2.3.4.5.{n + 1}")
    arguments = ("verify", site.originals, "-p", "research", "--originals", site.policies)

    lines = site.run(*arguments, json=False).stdout.splitlines()

    assert [line.split("\t")[0].rpartition("/")[2] for line in lines[1:-1]] == [*(f"{n:02}" for n in range(10)), "3 more; --json has all"]
    assert len(json.loads(site.run(*arguments).stdout)["files"]) == 13


@pytest.mark.system
def test_patients_who_opted_out_are_added_listed_and_ended(site: Site, postgres: str) -> None:
    site.connect_to(postgres)
    names = site.folder / "patients.csv"
    names.write_text("PatientID,Issuer\nP1,NORTH\nP2\n")
    with connect(postgres) as connection:
        connection.execute("TRUNCATE patient, patient_id, patient_choice, study")

    assert json.loads(site.run("patients", "add", "-f", names, "--project", "research", "--dry-run").stdout)["count"] == 2
    assert json.loads(site.run("patients", "list").stdout)["patients"] == []
    assert json.loads(site.run("patients", "add", "-f", names, "--project", "research").stdout) == {
        "count": 2,
        "unknown": 2,
        "stand_for_nobody": 0,
        "dry_run": False,
    }
    assert json.loads(site.run("patients", "add", "-f", names, "--project", "research").stdout)["count"] == 0
    listed = json.loads(site.run("patients", "list").stdout)["patients"]
    assert [(each["value"], each["issuer"], each["project"]) for each in listed] == [("P1", "NORTH", "research"), ("P2", "", "research")]
    assert json.loads(site.run("patients", "list", "--consent").stdout)["patients"] == []
    assert "--all-projects" in error_of(site.run("patients", "add", "P3", "--consent")).fix
    assert isinstance(error_of(site.run("patients", "add", "P3", "--project", "research", "--all-projects")), Misconfigured)
    assert json.loads(site.run("patients", "add", "P3", "--consent", "--all-projects").stdout)["count"] == 1
    assert [each["kind"] for each in json.loads(site.run("patients", "list").stdout)["patients"]] == ["opt-out", "opt-out", "consent"]
    assert [each["value"] for each in json.loads(site.run("patients", "list", "--consent").stdout)["patients"]] == ["P3"]
    assert json.loads(site.run("patients", "end", "P1", "--issuer", "NORTH", "--project", "research").stdout)["count"] == 1
    assert len(json.loads(site.run("patients", "list").stdout)["patients"]) == 2


@pytest.mark.system
def test_of_a_list_it_is_told_how_many_stand_for_nobody(site: Site, postgres: str) -> None:
    site.connect_to(postgres)

    added = site.run("patients", "add", "UNKNOWN", "P1", "0", "--project", "research", "--dry-run")

    assert json.loads(added.stdout)["stand_for_nobody"] == 2


def test_the_lines_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [block] = re.findall(r"^```console\n(hilum deid keys make .*?)^```", Path("README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    Path("images/a.dcm").write_bytes(part10(an_object(PatientName="Vandermeulen^Josefine", **PIXELS)))

    codes = [CliRunner().invoke(app, shlex.split(line)[1:]).exit_code for line in block.splitlines()]

    assert codes == [0, 0, 0, 0]
    assert Path("preview.html").exists()
    assert len(list(Path("deidentified").rglob("*.dcm"))) == 1


@pytest.mark.parametrize("text", ["A;NORTH\n", "A\tNORTH\n", "A,NORTH,B\n"])
def test_a_list_that_would_be_misread_is_refused(site: Site, text: str) -> None:
    names = site.folder / "patients.csv"
    names.write_text(text)

    error = site.run("patients", "add", "-f", names).exception

    assert isinstance(error, Misconfigured)
    assert "by a comma" in error.fix


@pytest.mark.system
def test_who_is_not_in_the_list_cannot_be_taken_off_it(site: Site, postgres: str) -> None:
    site.connect_to(postgres)

    assert isinstance(site.run("patients", "end", "NOBODY").exception, NotFound)


@pytest.mark.system
def test_what_left_is_listed(site: Site, postgres: str) -> None:
    site.connect_to(postgres)
    with connect(postgres) as connection:
        for version in ("aaa", "bbb"):
            connection.execute(
                "INSERT INTO deidentified (delivery_id, destination, policy, policy_version, key_id, study_instance_uid, sop_instance_uid,"
                " sent_study, sent_series, sent_as) VALUES ('d', 'lab', 'research', %s, 'k', '1.1', '1.2', '2.1', '2.2', '2.3')",
                (version,),
            )

    all_of_it = json.loads(site.run("outputs", "--policy", "research").stdout)["outputs"]
    of_one = json.loads(site.run("outputs", "--policy", "research", "--version", "bbb").stdout)["outputs"]

    of_nobody = json.loads(site.run("outputs", "--policy", "research", "--patient", "7H2N").stdout)["outputs"]

    shown = site.run("outputs", "--policy", "research", "--limit", 1, json=False).stdout

    assert of_nobody == []
    assert "There are more than these 1" in shown
    assert "perhaps" in shown
    assert [each["policy_version"] for each in all_of_it] == ["aaa", "bbb"]
    assert [(each["policy_version"], each["sent_as"], each["sent_at"]) for each in of_one] == [("bbb", "2.3", None)]


@pytest.mark.system
@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (("--policy", "reserch"), "research"),
        (("--policy", "research", "--version", "aab"), "aaa"),
        (("--policy", "research", "--destination", "laab"), "lab"),
    ],
)
def test_what_nobody_ever_heard_of_is_not_said_to_have_let_nothing_out(
    site: Site, postgres: str, asked: tuple[str, ...], says: str
) -> None:
    site.connect_to(postgres)
    with connect(postgres) as connection:
        connection.execute(
            "INSERT INTO deidentified (delivery_id, destination, policy, policy_version, key_id, study_instance_uid, sop_instance_uid,"
            " sent_study, sent_series, sent_as) VALUES ('d', 'lab', 'research', 'aaa', 'k', '1.1', '1.2', '2.1', '2.2', '2.3')"
        )

    error = site.run("outputs", *asked).exception

    assert isinstance(error, NotFound)
    assert error.fix == f"Did you mean {says}?"
