"""`hilum apply` on a whole Hilum: in force without a restart, visible on what it decided, refused where it would leave things behind."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bench.running import RunningHilum, Servers, running_hilum
from bench.wire import RawReceiver
from hilum.association import Answer
from hilum.peer import Peer
from hilum.scu import outgoing, send_all
from hilum.synthetic import write_ct_study
from hilum.testing import eventually

pytestmark = pytest.mark.system

CONFIG = """
[[rules]]
name = "keep"
to = ["archive"]
"""
TO_PACS = """
[[rules]]
name = "ct"
when = 'Modality == "CT"'
to = ["pacs"]
  [[rules.tests]]
  matches = true
  header = { Modality = "CT" }
"""


@pytest.fixture(scope="module")
def pacs() -> Iterator[RawReceiver]:
    receiver = RawReceiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="module")
def hilum(tmp_path_factory: pytest.TempPathFactory, servers: Servers, pacs: RawReceiver) -> Iterator[RunningHilum]:
    with running_hilum(tmp_path_factory.mktemp("hilum"), pacs.port, images_only=True, servers=servers()) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "rules.toml").write_text(CONFIG)
    return tmp_path / "config"


def answer(hilum: RunningHilum, *words: str | Path, code: int = 0) -> Any:
    done = hilum.command(*words, "--json", check=False)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def sent(hilum: RunningHilum, folder: Path, patient: str) -> dict[str, set[str]]:
    """Send a study of two slices; for each version of its decisions, where they sent it."""
    write_ct_study(folder, 2, rows=16, columns=16, patient=patient)
    assert answer(hilum, "send", folder)["stored"] == 2
    hilum.come_to_rest()
    rows = hilum.rows(
        "SELECT r.config_version, d.destination FROM receipt r JOIN study s USING (study_instance_uid)"
        " LEFT JOIN delivery d ON d.delivery_id = ANY(r.delivery_ids) WHERE s.patient_id = %s",
        patient,
    )
    found: dict[str, set[str]] = {}
    for version, destination in rows:
        found.setdefault(version, set()).add(destination)
    return found


def test_rules_are_in_force_without_a_restart_and_can_be_rolled_back(hilum: RunningHilum, folder: Path, tmp_path: Path) -> None:
    first = answer(hilum, "apply", "-f", folder, "-m", "to begin with")
    assert (first["stragglers"], first["absent"]) == ([], [])
    assert ("removed", "everything") in [(change["change"], change["name"]) for change in first["changes"]]
    own = answer(hilum, "config", "rollback", "settings", "--dry-run")
    assert ("added", "everything") in [(change["change"], change["name"]) for change in own["changes"]]
    assert any("/route/" in worker for worker in first["running"])
    assert sent(hilum, tmp_path / "a", "SYNTHA") == {first["version"]: {"archive"}}

    (folder / "ct.toml").write_text(TO_PACS)
    second = answer(hilum, "apply", "-f", folder)
    assert [(change["change"], change["name"]) for change in second["changes"]] == [("added", "ct")]
    assert sent(hilum, tmp_path / "b", "SYNTHB") == {second["version"]: {"archive", "pacs"}}

    back = answer(hilum, "config", "rollback")
    assert back["version"] == first["version"]
    assert sent(hilum, tmp_path / "c", "SYNTHC") == {first["version"]: {"archive"}}
    listed = answer(hilum, "config", "history")
    assert [each["version"] for each in listed[:3]] == [first["version"], second["version"], first["version"]]
    assert [change["name"] for change in answer(hilum, "config", "diff")["changes"]] == ["ct"]


DECIDED_BY = "SELECT 1 FROM receipt JOIN study USING (study_instance_uid) WHERE patient_id = %s AND config_version = %s LIMIT 1"


class Traffic:
    """Studies of four slices, one after another, from entering to leaving; `acknowledged` has the SOP Instance UIDs."""

    PATIENT = "SYNTHT"

    def __init__(self, port: int, folder: Path) -> None:
        self.acknowledged: list[str] = []
        self._peer = Peer(host="127.0.0.1", port=port, aet="HILUM", calling_aet="CT1")
        self._folder = folder
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def _send(self) -> None:
        for seed in itertools.count():
            files = [
                outgoing(path) for path in write_ct_study(self._folder / str(seed), 4, rows=16, columns=16, seed=seed, patient=self.PATIENT)
            ]
            for file, answer in send_all(self._peer, files):
                assert isinstance(answer, Answer)
                assert answer.status == 0
                self.acknowledged.append(file.sop_instance_uid)
            if self._stop.is_set():
                return

    def passes(self) -> None:
        """Wait until some more was acknowledged."""
        before = len(self.acknowledged)
        eventually(lambda: len(self.acknowledged) >= before + 20, what="twenty more objects are acknowledged")

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def test_traffic_that_flows_while_rules_are_applied_and_rolled_back_is_neither_lost_nor_doubled(
    hilum: RunningHilum, pacs: RawReceiver, folder: Path, tmp_path: Path
) -> None:
    first = answer(hilum, "apply", "-f", folder)["version"]
    with Traffic(hilum.port, tmp_path) as traffic:
        traffic.passes()
        (folder / "ct.toml").write_text(TO_PACS)
        second = answer(hilum, "apply", "-f", folder)["version"]
        eventually(partial(hilum.rows, DECIDED_BY, Traffic.PATIENT, second), what="a decision by the second version")
        traffic.passes()
        hilum.kill("route")
        assert answer(hilum, "config", "rollback")["version"] == first
        traffic.passes()
    hilum.come_to_rest()

    decided = hilum.rows(
        "SELECT r.sop_instance_uid, r.config_version, array_agg(d.destination ORDER BY d.destination) FROM receipt r"
        " JOIN study s USING (study_instance_uid) JOIN delivery d ON d.delivery_id = ANY(r.delivery_ids)"
        " WHERE s.patient_id = %s AND d.state = 'delivered' GROUP BY r.receipt",
        Traffic.PATIENT,
    )
    assert sorted(uid for uid, _, _ in decided) == sorted(traffic.acknowledged)
    to = {first: ["archive"], second: ["archive", "pacs"]}
    assert [(version, there) for _, version, there in decided if there != to[version]] == []
    assert {version for _, version, _ in decided} == {first, second}
    mine = {uid: len(pacs.received.get(uid, ())) for uid in traffic.acknowledged}
    assert mine == {uid: int(version == second) for uid, version, _ in decided}


def test_a_worker_that_was_killed_comes_back_with_what_is_in_force(hilum: RunningHilum, folder: Path, tmp_path: Path) -> None:
    applied = answer(hilum, "apply", "-f", folder)
    hilum.kill("route")

    assert sent(hilum, tmp_path / "a", "SYNTHK") == {applied["version"]: {"archive"}}


def test_candidates_are_tried_on_what_came_in_and_nothing_is_sent(hilum: RunningHilum, folder: Path, tmp_path: Path) -> None:
    answer(hilum, "apply", "-f", folder)
    sent(hilum, tmp_path / "a", "SYNTHH")
    before = hilum.rows("SELECT count(*) FROM delivery")
    (folder / "ct.toml").write_text(TO_PACS.replace('"CT"\'', '"CT" and Rows > 100\'').replace('"CT" }', '"CT", Rows = 101 }'))

    found = answer(hilum, "rule", "test", folder, "--last", "1d")["history"]

    assert found["instances"] >= 2
    assert ("ct", "Rows > 100") in {(near["rule"], near["missed"]) for near in found["near"]}
    assert hilum.rows("SELECT count(*) FROM delivery") == before


def test_a_destination_that_was_added_by_hand_is_known_to_rules_and_for_what_it_sends_back(
    hilum: RunningHilum, folder: Path, tmp_path: Path
) -> None:
    receiver = RawReceiver()
    (folder / "hand.toml").write_text(TO_PACS.replace("pacs", "hand"))
    refused = hilum.command("apply", "-f", folder, check=False)
    assert refused.returncode == 2
    assert "'hand', which is no destination" in refused.stderr

    where = ("--set", "type=dicom", "--set", "host=127.0.0.1", "--set", f"port={receiver.port}", "--set", "aet=BYHAND")
    answer(hilum, "dest", "add", "hand", *where)
    version = answer(hilum, "apply", "-f", folder)["version"]
    assert sent(hilum, tmp_path / "a", "SYNTHX") == {version: {"archive", "hand"}}
    refused = hilum.command("dest", "remove", "hand", check=False)
    assert "Rules send to hand: ct." in refused.stderr

    assert answer(hilum, "send", tmp_path / "a", "--calling-aet", "BYHAND")["stored"] == 2
    hilum.come_to_rest()
    outcomes = "SELECT outcome, count(*) FROM v_receipt JOIN study s USING (study_instance_uid) WHERE s.patient_id = 'SYNTHX' GROUP BY 1"
    assert dict(hilum.rows(outcomes)) == {"deliver": 2, "returned": 2}
    receiver.close()


def test_a_configuration_that_would_orphan_deliveries_is_refused_with_their_count(
    hilum: RunningHilum, folder: Path, tmp_path: Path
) -> None:
    nowhere = '[destinations.gone]\ntype = "dicom"\nhost = "127.0.0.1"\nport = 1\naet = "GONE"\n'
    (folder / "gone.toml").write_text(nowhere + '[[rules]]\nname = "gone"\nto = ["gone"]\n')
    answer(hilum, "apply", "-f", folder)
    write_ct_study(tmp_path / "a", 2, rows=16, columns=16, patient="SYNTHG")
    answer(hilum, "send", tmp_path / "a")
    eventually(lambda: hilum.rows("SELECT count(*) FROM delivery WHERE destination = 'gone'") == [(2,)])
    (folder / "gone.toml").unlink()

    refused = answer(hilum, "apply", "-f", folder, code=4)

    assert "2 deliveries wait for destinations that this configuration does not have: 2 for gone." in refused["error"]["sentence"]
    assert answer(hilum, "apply", "-f", folder, "--dry-run")["orphans"] == [{"destination": "gone", "pending": 2}]
    assert answer(hilum, "apply", "-f", folder, "--confirm")["stragglers"] == []


def test_a_configuration_with_a_mistake_changes_nothing(hilum: RunningHilum, folder: Path) -> None:
    before = answer(hilum, "config", "history")
    (folder / "rules.toml").write_text(CONFIG + TO_PACS.replace("Modality ==", "Modalty =="))

    refused = answer(hilum, "apply", "-f", folder, code=2)

    assert "Did you mean Modality?" in refused["error"]["fix"]
    assert answer(hilum, "config", "history") == before


def test_a_rule_that_fails_takes_nothing_from_the_others_and_decides_once_it_is_mended(
    hilum: RunningHilum, folder: Path, tmp_path: Path
) -> None:
    failing = '[[rules]]\nname = "wide"\nwhen = "1 / (Rows - 16) > 0"\nto = ["pacs"]\n'
    (folder / "wide.toml").write_text(failing)
    answer(hilum, "apply", "-f", folder)
    write_ct_study(tmp_path / "a", 2, rows=16, columns=16, patient="SYNTHF")
    assert answer(hilum, "send", tmp_path / "a")["stored"] == 2

    def failed() -> list[tuple[str, int]] | None:
        # Its exit code is about the roles: one that stands still for two seconds is not ready.
        found = json.loads(hilum.command("status", "--json", check=False).stdout)["failed_rules"]
        return None if found is None else [(each["says"], each["objects"]) for each in found]

    on_both = [("Rule 'wide' could not be evaluated: division by zero.", 2)]
    eventually(lambda: failed() == on_both, what="the rule has failed on both objects")
    counted = answer(hilum, "reconcile")
    assert (counted["failing"], counted["quarantined"], counted["unaccounted"]) == (2, 0, 0)

    (folder / "wide.toml").write_text(failing.replace("Rows - 16", "Rows + 16"))
    answer(hilum, "apply", "-f", folder)

    def sent_there() -> bool:
        went = (
            "SELECT count(*) FROM delivery JOIN study s USING (study_instance_uid) WHERE s.patient_id = 'SYNTHF' AND destination = 'pacs'"
        )
        return hilum.rows(f"{went} AND state = 'delivered'") == [(2,)]

    eventually(sent_there, what="the mended rule has sent both objects")
    # The index may read what was decided later than the ledger does.
    eventually(lambda: failed() == [], what="no rule fails any more")


def test_a_policy_that_gets_another_project_is_told_with_who_opted_out_of_the_former_one(
    hilum: RunningHilum, folder: Path, tmp_path: Path
) -> None:
    (folder / "study.toml").write_text(f'[destinations.study]\ntype = "folder"\npath = "{tmp_path}"\npolicy = "heart"\n')
    policy = folder / "policies" / "heart.toml"
    policy.parent.mkdir()
    policy.write_text('domain = "alpha"\n')
    answer(hilum, "apply", "-f", folder)
    answer(hilum, "deid", "patients", "add", "P1", "P2", "--project", "alpha")
    policy.write_text('domain = "beta"\n')

    dry = hilum.command("apply", "-f", folder, "--dry-run")
    assert "project beta" in answer(hilum, "apply", "-f", folder, code=4)["error"]["sentence"]
    (moved,) = answer(hilum, "apply", "-f", folder, "--yes")["moved"]

    assert "2 patients opted out" in dry.stderr
    assert "hilum deid projects carry alpha beta" in dry.stderr
    assert (moved["policy"], moved["former"], moved["project"], moved["opted_out"]) == ("heart", "alpha", "beta", 2)
    listed = {each["name"]: each for each in answer(hilum, "deid", "policies", "list")["policies"] if each["where"].startswith("published")}
    assert (listed["heart"]["project"], listed["heart"]["undecided"]) == ("beta", ["alpha"])
