"""How `hilum dest` answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from hilum.cli import app

pytestmark = pytest.mark.system


@pytest.fixture
def elsewhere(postgres: str, tmp_path: Path) -> dict[str, str]:
    """The environment of a Hilum whose parts run elsewhere, with one destination."""
    config = tmp_path / "hilum.toml"
    config.write_text('[destinations.archive]\ntype = "archive"\n')
    return {
        "HILUM_CONFIG": str(config),
        "HILUM_POSTGRES__DSN": postgres,
        "HILUM_KAFKA__BOOTSTRAP": "none:1",
        "HILUM_S3__ENDPOINT": "http://none:1",
    }


def test_a_destination_to_which_nothing_went_has_zeros(elsewhere: dict[str, str]) -> None:
    done = CliRunner().invoke(app, ["dest", "list"], env=elsewhere)

    waits = "no process of the role deliver is connected to the ledger; see `hilum status`"
    assert done.stdout.splitlines()[1] == f"archive\tarchive\t0\t0\t\t0\t0\t0\t\t{waits}"


def test_where_nothing_was_rejected_that_is_said(elsewhere: dict[str, str]) -> None:
    assert CliRunner().invoke(app, ["dest", "rejected"], env=elsewhere).stdout == "No delivery was rejected.\n"


def test_a_destination_whose_policy_lacks_its_key_is_not_asked_further(tmp_path: Path) -> None:
    config = tmp_path / "hilum.toml"
    config.write_text(
        f'data = "{tmp_path}"\n[destinations.study]\ntype = "folder"\npath = "{tmp_path}"\npolicy = "basic"\n'
        f'[deid]\nkey_path = "{tmp_path}/key"\npolicies = "/nonexistent"\n'
    )

    done = CliRunner().invoke(app, ["dest", "test", "study", "--config", str(config)])

    assert done.exit_code == 5
    [line] = [line for line in done.stdout.splitlines() if "policy" in line]
    assert line.startswith("FAILED\tpolicy")
    assert "hilum deid keys make" in line
    assert len(done.stdout.strip().splitlines()) == 2
