"""As which account PostgreSQL runs, and who owns its files."""

import os
import pwd
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from hilum.errors import Misconfigured
from hilum.services import postgres
from hilum.services.postgres import PostgresServer, account_for_root
from hilum.services.process import Run
from hilum.testing import eventually


def accounts(**uids: int) -> Callable[[str], pwd.struct_passwd]:
    """A system with these accounts."""
    return lambda name: pwd.struct_passwd((name, "x", uids[name], uids[name], "", "/", "/bin/false"))


@pytest.mark.parametrize(("system", "account"), [(accounts(hilum=990, nobody=65534), "hilum"), (accounts(nobody=65534), "nobody")])
def test_the_account_of_its_own_goes_before_the_shared_one(system: Callable[[str], pwd.struct_passwd], account: str) -> None:
    assert account_for_root(system) == account


def test_a_system_without_either_account_is_explained() -> None:
    with pytest.raises(Misconfigured, match="neither an account `hilum` nor `nobody`"):
        account_for_root(accounts(hilum=0))


def test_the_shared_account_is_warned_of() -> None:
    assert "useradd --system hilum" in postgres.doubts("nobody")[0]


@pytest.mark.parametrize("account", ["hilum", None])
def test_an_account_of_its_own_is_not_warned_of(account: str | None) -> None:
    assert postgres.doubts(account) == []


@pytest.mark.system
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")
def test_files_of_another_account_are_taken_over(tmp_path: Path) -> None:
    server = PostgresServer(tmp_path)
    run = Run(server.prepare())
    eventually(run.ready)
    run.stop()
    folder = tmp_path / "postgres"
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 1, 1, follow_symlinks=False)  # as if another account had run it

    run = Run(server.prepare())
    try:
        eventually(run.ready)

        with psycopg.connect(server.dsn) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        run.stop()
    assert {path.stat().st_uid for path in folder.rglob("*")} == {pwd.getpwnam(account_for_root()).pw_uid}
