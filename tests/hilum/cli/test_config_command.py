import json
import re
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme
from typer.testing import CliRunner

from bench.running import hilum
from hilum.cli import app
from hilum.errors import Misconfigured

GOOD = """
[destinations.archive]
type = "archive"
[destinations.copy]
type = "archive"
bucket = "copies"
endpoint = "http://127.0.0.1:9"
access_key = "AKEY"
secret_key = "HIDDEN"
[[rules]]
name = "ct"
when = 'Modality == "CT"'
to = ["archive"]
"""


class Tls(NamedTuple):
    """Paths of a certificate, its key and another key, in PEM."""

    certificate: str
    key: str
    other_key: str


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    ca = trustme.CA()
    found = Tls(*(str(tmp_path / f"{name}.pem") for name in Tls._fields))
    leaf = ca.issue_cert("hilum.example")
    leaf.cert_chain_pems[0].write_to_path(found.certificate)
    leaf.private_key_pem.write_to_path(found.key)
    ca.issue_cert("other.example").private_key_pem.write_to_path(found.other_key)
    return found


def checked(folder: Path, keys: str, section: str = "dicom") -> Misconfigured | None:
    """What `hilum config check` refuses in these keys of one section."""
    (folder / "hilum.toml").write_text(f"[{section}]\n{keys}\n")
    done = CliRunner().invoke(app, ["config", "check", "--config", str(folder / "hilum.toml")])
    assert done.exception is None or isinstance(done.exception, Misconfigured)
    return done.exception


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "hilum.toml"
    path.write_text(GOOD)
    return path


def test_right_settings_are_called_right_with_their_version(file: Path) -> None:
    done = CliRunner().invoke(app, ["config", "check", "--config", str(file), "--json"])

    found = json.loads(done.stdout)
    assert found["ok"]
    assert found["rules"] == ["ct"]
    assert len(found["config_version"]) == 12


def test_what_is_hardly_meant_is_said(file: Path) -> None:
    done = CliRunner().invoke(app, ["config", "check", "--config", str(file)])

    assert done.exit_code == 0
    assert "But: No rule sends anything to the destination copy." in done.stdout


def test_settings_without_rules_are_said_to_send_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.toml").write_text("")

    done = CliRunner().invoke(app, ["config", "check", "--config", str(tmp_path / "empty.toml"), "--json"])

    assert json.loads(done.stdout)["doubts"] == ["There is no rule: what comes in is kept and indexed, and goes nowhere."]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("Modality", "Modalty", "Did you mean Modality"),
        ('type = "archive"\n[d', 'type = "archiv"\n[d', "Did you mean archive"),
        ("bucket", "buckt", "Did you mean bucket"),
        ('to = ["archive"]', 'to = ["archve"]', "Did you mean archive"),
    ],
)
def test_a_wrong_name_anywhere_is_refused_with_the_nearest(file: Path, old: str, new: str, sentence: str) -> None:
    file.write_text(GOOD.replace(old, new, 1))

    done = CliRunner().invoke(app, ["config", "check", "--config", str(file)])

    assert isinstance(done.exception, Misconfigured)
    assert sentence in str(done.exception)


def test_tls_that_is_set_up_is_right(tmp_path: Path, tls: Tls) -> None:
    assert checked(tmp_path, f'tls_port = 2762\ntls_certificate = "{tls.certificate}"\ntls_key = "{tls.key}"') is None


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ("", r"dicom\.tls_certificate is missing.*Set dicom\.tls_certificate"),
        ('tls_certificate = "{certificate}"', r"dicom\.tls_key is not set, and there is no key beside the certificate"),
        ('tls_certificate = "{certificate}"\ntls_key = "/nowhere.pem"', r"dicom\.tls_key: /nowhere\.pem .*No such file"),
        ('tls_certificate = "/nowhere.pem"\ntls_key = "{key}"', r"dicom\.tls_certificate: /nowhere\.pem .*No such file"),
        ('tls_certificate = "{key}"\ntls_key = "{key}"', r"dicom\.tls_certificate: .*it is not PEM"),
        ('tls_certificate = "{certificate}"\ntls_key = "{other_key}"', r"dicom\.tls_key: .*it is not the key of the certificate"),
        (
            'tls_certificate = "{certificate}"\ntls_key = "{key}"\ntls_client_ca = "{key}"',
            r"dicom\.tls_client_ca: .*no certificate or crl found",
        ),
    ],
    ids=["nothing", "no key", "key's file", "certificate's file", "no certificate", "another key", "no authorities"],
)
def test_tls_that_cannot_be_spoken_is_refused_with_what_is_wrong(tmp_path: Path, tls: Tls, keys: str, sentence: str) -> None:
    for name, path in tls._asdict().items():
        keys = keys.replace(f"{{{name}}}", path)

    refused = checked(tmp_path, f"tls_port = 2762\n{keys}")

    assert refused is not None
    assert re.search(sentence, str(refused))
    assert refused.fix


def test_a_file_of_clients_that_is_not_there_yet_is_doubted_with_what_makes_it(tmp_path: Path) -> None:
    file = tmp_path / "hilum.toml"
    file.write_text(f'[roles]\nprocesses = ["stow"]\n[stow]\nclients = "{tmp_path / "clients"}"\n')

    first = json.loads(hilum("config", "check", "--config", file, "--json").stdout)["doubts"]
    hilum("stow", "key", "PORTAL", "--config", file)
    then = json.loads(hilum("config", "check", "--config", file, "--json").stdout)["doubts"]

    assert [doubt for doubt in first if "hilum stow key" in doubt]
    assert not [doubt for doubt in then if "hilum stow key" in doubt]


def test_tls_files_without_a_port_are_doubted(tmp_path: Path) -> None:
    (tmp_path / "hilum.toml").write_text('[dicom]\ntls_client_ca = "/ca.pem"\ntransfer_syntaxes = ["1.2.840.10008.1.2.4.9999"]\n')

    done = CliRunner().invoke(app, ["config", "check", "--config", str(tmp_path / "hilum.toml"), "--json"])

    doubts = json.loads(done.stdout)["doubts"]
    assert "dicom.tls_client_ca is set, and dicom.tls_port is 0: no TLS is spoken." in doubts
    assert (
        "dicom.transfer_syntaxes: 1.2.840.10008.1.2.4.9999 is of the standard, and not known to this release. Is it spelled right?"
        in doubts
    )


def test_show_tells_where_each_value_comes_from_and_hides_secrets(file: Path) -> None:
    done = CliRunner().invoke(app, ["config", "show", "--config", str(file), "--json"], env={"HILUM_DICOM__AET": "X"})

    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["dicom.aet"] == {"name": "dicom.aet", "value": "X", "origin": "HILUM_DICOM__AET"}
    assert rows["dicom.port"]["origin"] == "default"
    assert rows["destinations.archive.type"]["origin"] == str(file)
    assert "HIDDEN" not in done.stdout
    assert "AKEY" not in done.stdout


def test_a_folder_that_cannot_be_watched_is_refused(file: Path) -> None:
    file.write_text(GOOD + '\n[folders.inbox]\npath = "inbox"\n')

    done = CliRunner().invoke(app, ["config", "check", "--config", str(file)])

    assert isinstance(done.exception, Misconfigured)
    assert "folders.inbox cannot be watched: path is not an absolute path" in str(done.exception)


def test_roles_that_are_missing_are_said(tmp_path: Path) -> None:
    (tmp_path / "few.toml").write_text('[roles]\nprocesses = ["dicom"]')

    done = CliRunner().invoke(app, ["config", "check", "--config", str(tmp_path / "few.toml"), "--json"])

    assert any("has the role publish" in doubt for doubt in json.loads(done.stdout)["doubts"])


def test_all_mistakes_are_said_at_once(file: Path) -> None:
    more = '[[rules]]\nname = "other"\nwhen = "Rows"\nto = ["copy"]\n[senders.CT1]\nrefuse = ["none"]\n[roles]\nprocesses = ["dicm"]\n'
    file.write_text(GOOD.replace("Modality", "Modalty").replace("bucket", "buckt") + more)

    done = CliRunner().invoke(app, ["config", "check", "--config", str(file)])

    for part in ("5 mistakes", "Modalty", "'other' gives a number", "senders.CT1.refuse", "buckt", "'dicm'"):
        assert part in str(done.exception)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ("tls = true\ntls_ca = '/nowhere.pem'", "peers.CT1.tls_ca: /nowhere.pem cannot be used"),
        ("tls_ca = '/nowhere.pem'", "Set peers.CT1.tls = true"),
    ],
)
def test_files_for_tls_to_a_peer_are_looked_at(file: Path, more: str, sentence: str) -> None:
    file.write_text(f"{GOOD}[peers.CT1]\nhost = 'ct1.example'\nport = 104\n{more}\n")

    with pytest.raises(Misconfigured, match=sentence):
        CliRunner().invoke(app, ["config", "check", "--config", str(file)], catch_exceptions=False)


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ('tls_certificate = "{certificate}"\ntls_key = "{other_key}"', r"stow\.tls_key: .*it is not the key of the certificate"),
        ('clients = "/dev/null/clients"', r"/dev/null/clients cannot be read"),
    ],
    ids=["another key", "unreadable clients"],
)
def test_the_web_receivers_certificate_and_clients_are_looked_at(tmp_path: Path, tls: Tls, keys: str, sentence: str) -> None:
    for name, path in tls._asdict().items():
        keys = keys.replace(f"{{{name}}}", path)

    refused = checked(tmp_path, keys, "stow")

    assert refused is not None
    assert re.search(sentence, str(refused))
