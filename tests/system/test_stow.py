"""STOW-RS on a whole Hilum: from Orthanc's DICOMweb plugin to the archive, and through a kill."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from pydicom import dcmread

from bench.peers import ORTHANC_DICOMWEB, free_port, running
from bench.running import RunningHilum, Servers, hilum, running_hilum
from bench.wire import RawReceiver
from hilum.part10 import data_set_offset
from hilum.store import open_store
from hilum.synthetic import write_ct_study
from hilum.testing import eventually

pytestmark = pytest.mark.system

MORE = """
[roles]
processes = ["dicom", "stow", "publish", "validate,route,ledger,index", "deliver"]
[stow]
port = 0
clients = "{clients}"
"""


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A client's key, and the file of clients."""
    clients = tmp_path_factory.mktemp("clients") / "clients"
    return json.loads(hilum("stow", "key", "ORTHANC", "--file", clients, "--json").stdout)["key"], clients


@pytest.fixture(scope="module")
def stow(tmp_path_factory: pytest.TempPathFactory, servers: Servers, key: tuple[str, Path]) -> Iterator[RunningHilum]:
    """A Hilum that runs `stow` too."""
    pacs = RawReceiver()
    with running_hilum(tmp_path_factory.mktemp("stow"), pacs.port, MORE.format(clients=key[1]), servers=servers()) as found:
        yield found
    pacs.close()


@contextmanager
def orthanc(folder: Path, servers: dict[str, object]) -> Iterator[str]:
    """Orthanc with its DICOMweb plugin and these peers: its address."""
    dicom, http = free_port(), free_port()
    config = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "DicomPort": dicom,
        "HttpPort": http,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [ORTHANC_DICOMWEB],
        "DicomWeb": {"Enable": True, "Servers": servers},
    }
    (folder / "orthanc.json").write_text(json.dumps(config), encoding="utf-8")
    with running(["Orthanc", folder / "orthanc.json"], http, folder / "orthanc.log"):
        yield f"http://127.0.0.1:{http}"


def archived(found: RunningHilum, sop_instance_uid: str) -> bytes:
    """The data set that the archive has."""
    [(bucket, object_key)] = found.rows(
        "SELECT bucket, object_key FROM delivery WHERE sop_instance_uid = %s AND destination = 'archive' AND state = 'delivered'",
        sop_instance_uid,
    )
    part10 = open_store(found.settings).get(bucket, object_key)
    return part10[data_set_offset(part10) :]


def test_up_and_status_name_the_service(stow: RunningHilum) -> None:
    shown = json.loads(stow.command("status", "--json", check=False).stdout)

    assert shown["stow"] == stow.up["stow"]
    assert stow.up["stow"]["url"].startswith("http://127.0.0.1:")
    assert {role["name"]: role["ready"] for role in shown["roles"]}["stow"] is True


@pytest.mark.peer("Orthanc", ORTHANC_DICOMWEB)
def test_what_orthancs_dicomweb_plugin_sends_comes_into_the_archive(stow: RunningHilum, key: tuple[str, Path], tmp_path: Path) -> None:
    files = write_ct_study(tmp_path / "study", 12, rows=64, columns=64, patient="SYNTHSTOW")
    peer = {"Url": stow.up["stow"]["url"] + "/", "HttpHeaders": {"Authorization": f"Bearer {key[0]}"}}
    with orthanc(tmp_path, {"hilum": peer}) as address:
        for path in files:
            requests.post(f"{address}/instances", path.read_bytes(), timeout=60).raise_for_status()
        studies = requests.get(f"{address}/studies", timeout=60).json()
        sent = requests.post(f"{address}/dicom-web/servers/hilum/stow", json={"Resources": studies, "Synchronous": True}, timeout=60)
        assert sent.status_code == 200, sent.text
        assert sent.json()["InstancesCount"] == "12"
        account = stow.come_to_rest()
        assert (account.unaccounted, account.quarantined) == (0, 0)
        for path in files:
            there = str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)
            [known] = requests.post(f"{address}/tools/lookup", there, timeout=60).json()
            file = requests.get(f"{address}/instances/{known['ID']}/file", timeout=60).content
            assert archived(stow, there) == file[data_set_offset(file) :]
    assert stow.rows("SELECT DISTINCT adapter, calling_aet FROM receipt WHERE sop_instance_uid = %s", there) == [("stow", "ORTHANC")]


@contextmanager
def half_sent(url: str, key: str, whole: bytes) -> Iterator[None]:
    """A request of which half is sent."""
    where = urlsplit(url)
    head = (
        f"POST {where.path}/studies HTTP/1.1\r\nHost: {where.netloc}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/dicom\r\nContent-Length: {len(whole)}\r\n\r\n"
    )
    with socket.create_connection((where.hostname or "", where.port or 0), 10) as connection:
        connection.sendall(head.encode() + whole[: len(whole) // 2])
        yield


def test_what_was_answered_survives_a_kill_of_the_role(stow: RunningHilum, key: tuple[str, Path], tmp_path: Path) -> None:
    files = write_ct_study(tmp_path, 40, rows=64, columns=64, patient="SYNTHKILL")
    answered: dict[str, str] = {}
    for number, path in enumerate(files):
        whole = path.read_bytes()
        if number % 10 == 5:
            with half_sent(stow.up["stow"]["url"], key[0], whole):
                stow.kill("stow")

        def sent(whole: bytes = whole) -> bool:
            try:
                found = requests.post(
                    f"{stow.up['stow']['url']}/studies",
                    whole,
                    headers={"Content-Type": "application/dicom", "Authorization": f"Bearer {key[0]}"},
                    timeout=60,
                )
            except requests.ConnectionError:
                return False
            [item] = found.json()["00081199"]["Value"]
            answered[item["00081155"]["Value"][0]] = sha256(whole[data_set_offset(whole) :]).hexdigest()
            return True

        eventually(sent, what="the role is back")

    account = stow.come_to_rest()
    assert len(answered) == 40
    assert (account.unaccounted, account.quarantined) == (0, 0)
    for instance, digest in answered.items():
        assert {found for (found,) in stow.rows("SELECT DISTINCT sha256 FROM receipt WHERE sop_instance_uid = %s", instance)} == {digest}
