"""The commands, run as a person runs them, on a whole Hilum."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from bench.running import RunningHilum, hilum
from hilum.services.ports import Ports
from hilum.settings import Settings
from hilum.store import open_store
from hilum.synthetic import write_ct_study
from hilum.testing import eventually

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def study(one_hilum: RunningHilum, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A study of three slices that has been sent and has come to rest; its StudyInstanceUID."""
    folder = tmp_path_factory.mktemp("study")
    [first, *_] = write_ct_study(folder, 3, rows=16, columns=16, patient="SYNTH4711")
    sent = json.loads(one_hilum.command("send", folder, "--json").stdout)
    assert (sent["sent"], sent["stored"]) == (3, 3)
    one_hilum.come_to_rest()
    return str(dcmread(first).StudyInstanceUID)


def test_up_and_status_give_every_endpoint_and_role(one_hilum: RunningHilum) -> None:
    def shown() -> dict[str, Any]:
        # Nothing while a role is not ready: one whose process stands still for two seconds does not answer in time.
        done = one_hilum.command("status", "--json", check=False)
        return dict(json.loads(done.stdout)) if done.returncode == 0 else {}

    status = eventually(shown, what="every role is ready")
    for found in (one_hilum.up, status):
        services = ["storage", "storage-commitment", "worklist", "mpps"]
        assert found["dicom"] == {"host": "127.0.0.1", "port": one_hilum.port, "aet": "HILUM", "services": services}
        assert found["stow"] is None
        assert found["hl7"] == {"host": "127.0.0.1", "port": Ports(one_hilum.settings.data_dir).kept("hl7.port"), "tls_port": 0}
        assert found["kafka"]["bootstrap"] == one_hilum.settings.kafka.bootstrap
        assert found["s3"]["endpoint"] == one_hilum.settings.s3.endpoint
        assert found["postgres"]["database"] == "hilum"
        assert found["state"] == "ready"
        assert {role["name"] for role in found["roles"]} == set(Settings().role_names)
    assert all(role["ready"] for role in status["roles"])


def test_watching_shows_it_again_until_ctrl_c(one_hilum: RunningHilum) -> None:
    command = [sys.executable, "-m", "hilum", "status", "--watch", "--json", "--config", str(one_hilum.config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout
        ends = (line for line in watching.stdout if line == "}\n")
        assert [next(ends), next(ends)] == ["}\n", "}\n"]
        watching.send_signal(signal.SIGINT)
        watching.stdout.read()

    assert watching.returncode == 0


def test_an_error_is_json_too_for_machines(one_hilum: RunningHilum) -> None:
    done = one_hilum.command("study", "show", "1.2.3", "--json", check=False)

    assert done.returncode == 3
    assert json.loads(done.stdout)["error"]["exit_code"] == 3


def test_no_password_is_shown(one_hilum: RunningHilum) -> None:
    shown = one_hilum.command("status", "--json", check=False).stdout + one_hilum.command("config", "show", "--json").stdout
    secrets = [path.read_text().strip() for path in (one_hilum.settings.data_dir / "secrets").iterdir()]

    assert secrets
    assert "SCRAM-SHA-256" in shown
    assert not [secret for secret in secrets if secret in shown]


def test_a_second_up_on_the_same_data_says_who_runs_there(one_hilum: RunningHilum) -> None:
    done = one_hilum.command("up", "--detach", check=False)

    assert done.returncode == 2
    assert f"Hilum already runs on {one_hilum.settings.data_dir}, as process {one_hilum.state.pid}" in done.stderr


def test_a_study_is_shown_by_uid_and_by_accession_number(one_hilum: RunningHilum, study: str) -> None:
    for wanted in (study, "SYN4711"):
        [shown] = json.loads(one_hilum.command("study", "show", wanted, "--json").stdout)
        assert shown["summary"]["study_instance_uid"] == study
        assert shown["summary"]["instances"] == 3
        assert {(d["destination"], d["state"], d["deliveries"]) for d in shown["deliveries"]} == {
            ("archive", "delivered", 3),
            ("pacs", "delivered", 3),
        }


@pytest.fixture(scope="module")
def readme(one_hilum: RunningHilum, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Runs the line of README.md's example that begins so, with this Hilum's ports; the message of the example has been written."""
    [block] = re.findall(r"^```console\n(cat > order\.hl7 .*?)^```", Path("README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    block = block.replace("2575", str(one_hilum.up["hl7"]["port"])).replace("11112", str(one_hilum.port))
    message, end, commands = block.rpartition("END\n")
    folder = tmp_path_factory.mktemp("readme")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HILUM_CONFIG": str(one_hilum.config)}

    def run(line: str) -> str:
        done = subprocess.run(["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    run(message + end)
    return lambda beginning: run(next(line for line in commands.splitlines() if line.startswith(beginning)))


def test_an_order_is_sent_and_seen_by_the_lines_of_the_readme(readme: Callable[[str], str]) -> None:
    assert "\tAA\t" in readme("hilum hl7 send")
    eventually(lambda: "A4711" in readme("hilum worklist"), what="the order on the worklist")
    assert "Nothing of the study A4711 has come yet. It is ordered." in readme("hilum study show")
    assert "A4711" in readme("findscu")
    assert "MSA|AA|" in readme("mllp_send"), "an equal repeat is acknowledged"


def test_a_study_that_is_not_there_is_exit_code_3(one_hilum: RunningHilum) -> None:
    assert one_hilum.command("study", "show", "1.2.3.4", check=False).returncode == 3


@pytest.mark.parametrize("wanted", ["SYN4711", "SYNTH4711", "Synthetic"])
def test_studies_are_found_by_accession_number_patient_and_name(one_hilum: RunningHilum, study: str, wanted: str) -> None:
    found = json.loads(one_hilum.command("study", "list", wanted, "--json").stdout)

    assert study in {each["study_instance_uid"] for each in found}


@pytest.mark.usefixtures("study")
def test_destinations_are_listed_with_what_waits_for_them(one_hilum: RunningHilum) -> None:
    listed = {row["name"]: row for row in json.loads(one_hilum.command("dest", "list", "--json").stdout)}

    assert listed.keys() == {"archive", "pacs"}
    assert listed["pacs"]["counts"]["pending"] == 0
    assert listed["pacs"]["counts"]["delivered"] >= 3


@pytest.mark.parametrize("name", ["archive", "pacs"])
def test_a_destination_that_works_passes_every_step(one_hilum: RunningHilum, name: str) -> None:
    steps = json.loads(one_hilum.command("dest", "test", name, "--json").stdout)

    assert steps
    assert all(step["ok"] for step in steps)


@pytest.mark.usefixtures("study")
def test_a_sender_is_listed_and_shown_with_what_was_agreed_to(one_hilum: RunningHilum) -> None:
    def listed() -> dict[str, dict[str, Any]]:
        return {row["calling_aet"]: row for row in json.loads(one_hilum.command("sender", "list", "--json").stdout)}

    eventually(lambda: listed().get("HILUM_SEND", {}).get("objects", 0) >= 3)
    assert (listed()["HILUM_SEND"]["standing"], listed()["HILUM_SEND"]["served"]) == ("unknown", True)
    shown = json.loads(one_hilum.command("sender", "show", "HILUM_SEND", "--json").stdout)
    association = shown["associations"][-1]
    assert shown["sender"]["objects"] >= 3
    assert [(each["abstract_syntax"], each["result"]) for each in association["contexts"]] == [("1.2.840.10008.5.1.4.1.1.2", 0)]
    assert association["statuses"] == {"0x0000": 3}
    assert "CT Image Storage" in one_hilum.command("sender", "show", association["association"]).stdout


def test_a_sender_is_blocked_and_allowed_again_at_once(one_hilum: RunningHilum) -> None:
    def echo() -> int:
        return one_hilum.command("echo", "--calling-aet", "BLOCK_ME", check=False).returncode

    assert echo() == 0
    one_hilum.command("sender", "block", "BLOCK_ME")
    assert echo() != 0
    one_hilum.command("sender", "forget", "BLOCK_ME")
    assert echo() == 0


def test_a_title_that_is_none_cannot_be_allowed(one_hilum: RunningHilum) -> None:
    done = one_hilum.command("sender", "allow", "MORE THAN SIXTEEN CHARACTERS", check=False)

    assert done.returncode == 2
    assert "1 to 16 ASCII characters" in done.stderr


def test_an_unknown_destination_is_refused_with_the_nearest(one_hilum: RunningHilum) -> None:
    done = one_hilum.command("dest", "test", "pasc", check=False)

    assert done.returncode == 3
    assert "Did you mean pacs?" in done.stderr


def test_echo_asks_this_hilum_unless_told_otherwise(one_hilum: RunningHilum) -> None:
    assert json.loads(one_hilum.command("echo", "--json").stdout)["status"] == "0x0000"


def test_echo_of_a_port_where_nobody_listens_is_exit_code_5(one_hilum: RunningHilum) -> None:
    done = one_hilum.command("echo", "--host", "127.0.0.1", "--port", "1", check=False)

    assert done.returncode == 5
    assert "cannot be reached" in done.stderr


@pytest.mark.usefixtures("study")
def test_reconcile_finds_an_object_that_only_the_store_has(one_hilum: RunningHilum, tmp_path: Path) -> None:
    store, bucket = open_store(one_hilum.settings), one_hilum.settings.s3.bucket
    stray = "1.2/1.2.3/1.2.3.4/stray.dcm"
    (tmp_path / "stray").write_bytes(b"x")
    with (tmp_path / "stray").open("rb") as content:
        store.put(bucket, stray, content, 1)
    try:
        # The store's times are whole seconds, and what is that young may still be on its way to the log.
        for _ in range(20):
            done = one_hilum.command("reconcile", "--json", check=False)
            account = json.loads(done.stdout)
            if account["unaccounted"]:
                break
        assert (done.returncode, account["unaccounted"]) == (1, 1)
        assert stray in account["details"][0]
    finally:
        store.delete(bucket, stray)
    assert one_hilum.command("reconcile").returncode == 0


def test_reconcile_finds_an_object_that_the_store_has_lost(one_hilum: RunningHilum, study: str) -> None:
    store, bucket = open_store(one_hilum.settings), one_hilum.settings.s3.bucket
    [(key,)] = one_hilum.rows("SELECT object_key FROM receipt WHERE study_instance_uid = %s LIMIT 1", study)
    store.copy(bucket, key, bucket, "kept.txt")
    store.delete(bucket, key)
    try:
        account = json.loads(one_hilum.command("reconcile", "--json", check=False).stdout)
        assert account["unaccounted"] == 1
        assert key in account["details"][0]
    finally:
        store.copy(bucket, "kept.txt", bucket, key)
        store.delete(bucket, "kept.txt")


def test_commands_on_a_directory_where_nothing_runs_say_so(tmp_path: Path) -> None:
    for arguments in (("status",), ("study", "list"), ("reconcile",)):
        done = hilum(*arguments, "--data", tmp_path, check=False)
        assert done.returncode == 3
        assert f"No Hilum is running on {tmp_path}" in done.stderr
