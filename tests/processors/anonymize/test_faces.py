"""A program that defaces heads: run without a shell, for a bounded time, and its output is not trusted."""

from __future__ import annotations

import fcntl
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless
from typer.testing import CliRunner

from hilum.cli import app
from hilum.errors import Misconfigured, TryAgain
from hilum.testing import eventually
from processors.anonymize.faces import Defacer
from processors.anonymize.held import Held
from processors.anonymize.outgoing import outgoing
from tests.processes import by_number, ended
from tests.processors.anonymize.objects import KEY, a_context, a_policy, part10, read
from tests.processors.anonymize.test_pixels import an_image, compressed, pixels_of

PLACE: dict[str, Any] = {"ImagePositionPatient": [1, 2, 3], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [0.5, 0.5]}
HEAD = part10(an_image(16, 16, BodyPartExamined="HEAD", SliceThickness="1", **PLACE))
POLICY = a_policy(more='[kinds]\nhead-volume = "deface"')
#: Tells its number in one step: a file that is there is whole.
SLEEP = (
    "import os, sys, time; open(sys.argv[1] + '.new', 'w').write(str(os.getpid())); "
    "os.rename(sys.argv[1] + '.new', sys.argv[1]); time.sleep(600)"
)
READ = "import sys; data = bytearray(open(sys.argv[1], 'rb').read()); "
FACE = "data[-64:] = bytes(64); "
WRITE = "open(sys.argv[2], 'wb').write(data)"


def a_defacer(does: str, timeout_s: float = 60) -> Defacer:
    return Defacer(command=(sys.executable, "-c", does, "{input}", "{output}"), timeout_s=timeout_s)


def why(defacer: Defacer | None, tmp_path: Path) -> str:
    with pytest.raises(Held) as held:
        outgoing(HEAD, a_context(POLICY), folder=tmp_path, defacer=defacer)
    assert held.value.reason == "not-defaced"
    assert list(tmp_path.iterdir()) == []
    return str(held.value)


def test_its_samples_leave_in_the_objects_own_header(tmp_path: Path) -> None:
    defacer = a_defacer(READ + FACE + "data = data.replace(b'Doe^Jane', b'Eve^Evil'); " + WRITE)

    done = b"".join(outgoing(HEAD, a_context(POLICY), folder=tmp_path, defacer=defacer).parts)

    assert not pixels_of(done)[0, -4:].any()
    assert (pixels_of(done)[0, :-4] == pixels_of(HEAD)[0, :-4]).all()
    assert "113102" in [item.CodeValue for item in read(done).DeidentificationMethodCodeSequence]
    assert "BurnedInAnnotation" not in read(done)
    assert read(done).ImageType[0] == "DERIVED"
    assert "Face taken away" in read(done).DerivationDescription
    assert read(done).ImagePositionPatient == [1, 2, 3]
    assert list(tmp_path.iterdir()) == []


def test_without_a_program_heads_are_held(tmp_path: Path) -> None:
    assert "no program is set" in why(None, tmp_path)


@pytest.mark.parametrize(
    ("does", "says"),
    [
        ("raise SystemExit(3)", "exit status 3"),
        ("pass", "wrote no file"),
        (READ + WRITE, "changed nothing"),
        (READ + "data = data[:-10]; " + WRITE, "something else"),
        (READ + "data = b'no image'; " + WRITE, "something else"),
        (READ + "data = data + bytes(5000000); " + WRITE, "cannot be"),
        (READ + FACE + "data = data.replace(b'2.0', b'2.5'); " + WRITE, "moved or turned"),
        (READ + FACE + "data = data.replace(b'1.2.3.4.5.6', b'1.2.3.4.5.7'); " + WRITE, "another object"),
        (READ + "data[-256:] = bytes(255 - each for each in data[-256:]); " + WRITE, "every sample"),
        (READ + FACE + "data = data[:-2]; " + WRITE, "something else"),
        ("import os, sys; os.symlink(sys.argv[1], sys.argv[2])", "wrote no file"),
    ],
)
def test_an_output_that_is_not_as_asked_is_not_used(does: str, says: str, tmp_path: Path) -> None:
    assert says in why(a_defacer(does), tmp_path)


def test_what_it_started_ends_with_it(tmp_path: Path) -> None:
    sleeper = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}, sys.argv[2] + '.pid'], close_fds=False); "
    wait = "import os, time\nwhile not os.path.exists(sys.argv[2] + '.pid'): time.sleep(0.01)\n"
    tell = f"open({str(tmp_path.parent / 'pid')!r}, 'w').write(open(sys.argv[2] + '.pid').read())"

    assert "wrote no file" in why(a_defacer(f"{sleeper}\n{wait}{tell}"), tmp_path)

    eventually(lambda: ended(by_number((tmp_path.parent / "pid").read_text())))


def test_it_knows_nothing_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HILUM_S3_SECRET_KEY", "secret")
    tell = "import os; raise SystemExit(7 if any('HILUM' in each for each in os.environ) else 9)"

    assert "exit status 9" in why(a_defacer(tell), tmp_path)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, RLELossless])
def test_a_compressed_head_is_compared_with_what_it_shows(syntax: UID, tmp_path: Path) -> None:
    head = compressed(an_image(40, 40, BodyPartExamined="HEAD", SliceThickness="1", LossyImageCompression="01"), syntax)
    unpack = "import pydicom, sys; ds = pydicom.dcmread(sys.argv[1]); ds.decompress(generate_instance_uid=False); "
    face = "ds.PixelData = ds.PixelData[:-80] + bytes(80); "
    write = "ds.save_as(sys.argv[2])"

    done = b"".join(outgoing(head, a_context(POLICY), folder=tmp_path, defacer=a_defacer(unpack + face + write)).parts)
    with pytest.raises(Held, match="changed nothing"):
        outgoing(head, a_context(POLICY), folder=tmp_path, defacer=a_defacer(unpack + write))

    assert (pixels_of(done)[0, :-2] == pixels_of(head)[0, :-2]).all()
    assert not pixels_of(done)[0, -2:].any()
    assert read(done).file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert read(done).LossyImageCompression == "01"


def test_what_a_killed_process_left_is_deleted_and_what_another_one_uses_is_not(tmp_path: Path) -> None:
    left, used = tmp_path / "hilum-deface-left", tmp_path / "hilum-deface-used"
    for each in (left, used):
        each.mkdir()
        (each / "input.dcm").write_bytes(HEAD)
    held = os.open(used, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)

    outgoing(HEAD, a_context(POLICY), folder=tmp_path, defacer=a_defacer(READ + FACE + WRITE))
    os.close(held)

    assert list(tmp_path.iterdir()) == [used]


def test_a_full_disk_is_no_fault_of_the_object(tmp_path: Path) -> None:
    with pytest.raises(TryAgain):
        outgoing(HEAD, a_context(POLICY), folder=tmp_path / "gone", defacer=a_defacer(READ + FACE + WRITE))


def test_the_program_of_the_settings_is_asked_and_what_it_made_leaves(tmp_path: Path) -> None:
    program = tmp_path / "deface.py"
    program.write_text(READ + FACE + WRITE)
    (tmp_path / "key").write_text(KEY.secret.hex())
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "head").write_bytes(HEAD)
    (tmp_path / "heads.toml").write_text('[kinds]\nhead-volume = "deface"\n')
    command = [sys.executable, str(program), "{input}", "{output}"]
    (tmp_path / "hilum.toml").write_text(
        f'[deid]\nkey_path = "{tmp_path}/key"\npolicies = "{tmp_path}"\ndefacer = {json.dumps(command)}\ndefacer_timeout_s = 60\n'
    )
    words = ["deid", "run", str(tmp_path / "in"), "-p", "heads", "-o", str(tmp_path / "out"), "--config", str(tmp_path / "hilum.toml")]

    result = CliRunner().invoke(app, words)
    (written,) = (tmp_path / "out").rglob("*.dcm")
    program.write_text("raise SystemExit(1)")
    held = CliRunner().invoke(app, [*words[:6], str(tmp_path / "none"), *words[7:]])

    assert (result.exit_code, held.exit_code) == (0, 4)
    assert not pixels_of(written.read_bytes())[0, -4:].any()
    assert not list((tmp_path / "none").rglob("*.dcm"))


def test_it_is_ended_when_it_takes_too_long(tmp_path: Path) -> None:
    assert "did not end" in why(a_defacer("import time; time.sleep(600)", timeout_s=0.3), tmp_path)


def test_a_program_that_is_not_there_holds_the_object(tmp_path: Path) -> None:
    assert "cannot be started" in why(Defacer(command=("/nonexistent/deface", "{input}", "{output}")), tmp_path)


def test_a_command_names_both_files() -> None:
    with pytest.raises(Misconfigured, match="does not name"):
        Defacer(command=("deface", "{input}"))


def test_other_images_are_not_given_to_it(tmp_path: Path) -> None:
    chest = part10(an_image(16, 16, BodyPartExamined="CHEST"))

    assert outgoing(chest, a_context(POLICY), folder=tmp_path).sop_instance_uid
