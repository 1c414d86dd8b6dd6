"""`hilum demo`, as one who tries Hilum for the first time runs it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from bench.running import alone_on_this_machine
from hilum.services.runstate import read_run_state
from hilum.testing import eventually

pytestmark = pytest.mark.system


def processes_in(folder: Path) -> list[str]:
    """What runs with files in `folder`."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = " ".join(process.info["cmdline"] or ())
        if str(folder) in command:
            found.append(command)
    return found


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "hilum", "demo", *arguments],
        env={**os.environ, "TMPDIR": str(folder), "HILUM_KAFKA__BOOTSTRAP": "another-hilum:9092"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def is_up(folder: Path) -> bool:
    states = [read_run_state(data) for data in folder.glob("hilum-demo-*/data")]
    return any(state is not None and state.state == "ready" for state in states)


def test_the_demo_accounts_for_every_file_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with alone_on_this_machine():
        demo = start(tmp_path, "--slices", "5", "--json")
        eventually(lambda: is_up(tmp_path) or demo.poll() is not None, 180, what="everything has started")
    with demo:
        said, errors = demo.communicate(timeout=300)

    assert demo.returncode == 0, errors
    result = json.loads(said)
    account = result["account"]
    assert result["ok"] is True
    assert account["received"] == result["sent"] - len(result["not_stored"])
    assert account["received"] == sum(account[name] for name in ("routed", "unrouted", "duplicates", "quarantined", "undecided"))
    assert account["unaccounted"] == 0
    assert account["destinations"]["pacs"] == {"delivered": result["at_the_pacs"]}
    assert result["at_the_pacs"] > 50
    assert all(each["why"] for each in result["not_stored"])
    assert {each["status"] for each in result["not_stored"]} == {"not sent"}
    assert [each["ok"] for each in result["order"]] == [True] * 6
    assert result["order"][4]["came_of_it"] == "matched with SYN0001, by its accession number"
    assert "Warning" not in errors
    assert all(each["objects"] > 0 and each["sentence"] for each in result["quarantined"])
    assert processes_in(tmp_path) == []
    assert list(tmp_path.glob("hilum-demo-*")) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_a_demo_that_is_stopped_takes_everything_with_it(tmp_path: Path, number: signal.Signals) -> None:
    with alone_on_this_machine(), start(tmp_path) as demo:
        eventually(lambda: any("kafka.Kafka" in command for command in processes_in(tmp_path)), what="the broker is starting")
        demo.send_signal(number)
        demo.communicate(timeout=60)

    assert demo.returncode != 0
    eventually(lambda: processes_in(tmp_path) == [], what="everything has ended")
