from __future__ import annotations

import stat
from pathlib import Path

import pytest

from hilum.errors import Misconfigured
from hilum.settings import Stow
from hilum.web import Clients, add_client, url_of


@pytest.mark.parametrize(
    ("stow", "url"),
    [
        (Stow(), "http://127.0.0.1:80/dicom-web"),
        (Stow(host="::1", base="/a/b/", tls_certificate="x"), "https://[::1]:80/a/b"),
        (Stow(base=""), "http://127.0.0.1:80"),
    ],
)
def test_the_address_is_a_url(stow: Stow, url: str) -> None:
    assert url_of(stow, 80) == url


def test_a_client_is_known_by_its_key_which_is_kept_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "new" / "clients"
    portal, lab = add_client(path, "PORTAL"), add_client(path, "LAB")

    clients = Clients(path)

    assert (clients.title_of(portal), clients.title_of(lab)) == ("PORTAL", "LAB")
    assert clients.title_of("") == clients.title_of(portal + "x") == clients.title_of("\u00e9") == ""
    assert portal not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_client_may_have_several_keys_and_lines_may_be_comments(tmp_path: Path) -> None:
    keys = [add_client(tmp_path / "clients", "LAB") for _ in range(2)]
    text = (tmp_path / "clients").read_text()
    (tmp_path / "clients").write_text(f"# Ours\n\n{text.splitlines()[0]}  # the old one\n{text.splitlines()[1]}\n")

    assert [Clients(tmp_path / "clients").title_of(key) for key in keys] == ["LAB", "LAB"]


@pytest.mark.parametrize("title", ["", "x" * 17, "Two words", "a\nb"])
def test_a_title_fits_into_an_ae_title(tmp_path: Path, title: str) -> None:
    with pytest.raises(Misconfigured, match="is no title for a client"):
        add_client(tmp_path / "clients", title)


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    add_client(tmp_path / "clients", "LAB")
    (tmp_path / "clients").chmod(0o640)

    with pytest.raises(Misconfigured, match="chmod 600"):
        Clients(tmp_path / "clients")


@pytest.mark.parametrize("line", ["LAB sha256:12", "LAB md5:" + "0" * 64, "LAB secret", "a key in the clear"])
def test_a_line_that_is_none_is_named_by_its_number_only(tmp_path: Path, line: str) -> None:
    path = tmp_path / "clients"
    add_client(path, "LAB")
    path.write_text(path.read_text() + line + "\n")

    with pytest.raises(Misconfigured, match=r"Line 2 of .* is not") as stop:
        Clients(path)

    assert line not in str(stop.value)


def test_where_there_is_no_file_there_is_no_client_yet(tmp_path: Path) -> None:
    clients = Clients(tmp_path / "clients")
    assert (clients.is_empty(), clients.title_of("x")) == (True, "")

    key = add_client(tmp_path / "clients", "LAB")

    assert (clients.is_empty(), clients.title_of(key)) == (False, "LAB")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clients").write_bytes(b"\xff\xfe")
    (tmp_path / "clients").chmod(0o600)
    with pytest.raises(Misconfigured, match="it is no text"):
        Clients(tmp_path / "clients")
