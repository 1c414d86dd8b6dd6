from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.running import hilum
from hilum.web import Clients


def test_a_key_is_shown_once_and_its_client_is_known(tmp_path: Path) -> None:
    (tmp_path / "hilum.toml").write_text(f'[stow]\nclients = "{tmp_path / "clients"}"\n')

    shown = hilum("stow", "key", "PORTAL", "--config", tmp_path / "hilum.toml")
    other = json.loads(hilum("stow", "key", "LAB", "--file", tmp_path / "clients", "--json").stdout)

    clients = Clients(tmp_path / "clients")
    assert clients.title_of(shown.stdout.strip()) == "PORTAL"
    assert clients.title_of(other["key"]) == other["title"] == "LAB"


@pytest.mark.parametrize(
    ("arguments", "says"), [(("PORTAL",), "Set stow.clients"), (("Two words", "--file", "x"), "is no title for a client")]
)
def test_what_cannot_be_done_is_said_in_words(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    done = hilum("stow", "key", *arguments, "--data", tmp_path, check=False)

    assert done.returncode == 2
    assert says in done.stderr
