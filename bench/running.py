"""A whole Hilum, as `hilum up` runs it, for benchmarks and for the tests of the whole path."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg

from hilum.reconcile import Account, reconcile
from hilum.services.endpoints import with_endpoints
from hilum.services.process import is_running
from hilum.services.runstate import ChildState, RunState, read_run_state
from hilum.settings import Settings, forget_environment, load
from hilum.testing import eventually

SETTINGS = """\
data = "{data}"
[dicom]
port = {port}
[destinations.archive]
type = "archive"
[destinations.pacs]
type = "dicom"
host = "127.0.0.1"
port = {pacs_port}
aet = "PACS"
{pacs}
[[rules]]
name = "everything"
when = "true"
to = ["archive", "pacs"]
"""
#: The roles of images alone, for who has no use for orders, worklist and messages: half a second of processor time less at each start.
IMAGES_ONLY = """\
[worklist]
serve = false
mpps = false
[roles]
processes = ["dicom", "publish", "validate,route,ledger,index", "deliver,commitment,query,expire"]
"""


#: Gives settings of servers that run already, for one Hilum.
Servers = Callable[[], Settings]
#: The same as text.
SERVERS = """
[kafka]
bootstrap = "{kafka.bootstrap}"
prefix = "{kafka.prefix}"
security_protocol = "{kafka.security_protocol}"
sasl_mechanism = "{kafka.sasl_mechanism}"
sasl_username = "{kafka.sasl_username}"
sasl_password = "{kafka.sasl_password}"
[postgres]
dsn = "{postgres.dsn}"
[s3]
endpoint = "{s3.endpoint}"
access_key = "{s3.access_key}"
secret_key = "{s3.secret_key}"
sync_path = "{s3.sync_path}"
bucket = "{s3.bucket}"
"""


def hilum(*arguments: str | Path, check: bool = True, within_s: float = 300) -> subprocess.CompletedProcess[str]:
    """Run the `hilum` command as a person would. Raises `AssertionError` with what it said if it fails and `check` is true."""
    command = [sys.executable, "-m", "hilum", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=within_s)
    said = f"hilum {' '.join(map(str, arguments))}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    if "Traceback" in done.stderr or (check and done.returncode != 0):
        raise AssertionError(said)
    return done


@dataclass
class RunningHilum:
    """What one asks of a running Hilum."""

    config: Path
    up: dict[str, Any]  #: what `hilum up --json` printed
    ready_s: float  #: how long it took

    @property
    def port(self) -> int:
        """Of the DICOM listener."""
        return int(self.up["dicom"]["port"])

    @property
    def settings(self) -> Settings:
        """With every endpoint filled in."""
        return with_endpoints(load(self.config).settings)

    @property
    def state(self) -> RunState:
        """The supervisor's own account."""
        state = read_run_state(load(self.config).settings.data_dir)
        assert state is not None
        return state

    def rows(self, query: str, *parameters: Any) -> list[Any]:
        """What PostgreSQL answers."""
        with psycopg.connect(self.settings.postgres.dsn, autocommit=True) as connection:
            return connection.execute(query, parameters).fetchall()

    def command(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A `hilum` command on this Hilum."""
        return hilum(*arguments, "--config", self.config, check=check)

    def come_to_rest(self, within_s: float = 240) -> Account:
        """Wait until nothing is on its way any more, then reconcile; what waits for a person is at rest. Raises `TimeoutError`."""
        end = time.monotonic() + within_s
        spool = self.settings.spool_dir / "objects"
        on_the_way = """
            SELECT (SELECT count(*) FROM receipt WHERE decision IS NULL AND quarantine_reason IS NULL)
                 + (SELECT count(*) FROM delivery WHERE state = 'pending') + (SELECT count(*) FROM outbox)
        """
        while time.monotonic() < end:
            try:
                if not any(spool.glob("*.dcm")) and self.rows(on_the_way) == [(0,)]:
                    account = reconcile(self.settings, wait_s=end - time.monotonic())
                    if account.at_rest:
                        return account
            except psycopg.OperationalError:  # it may have been killed a moment ago
                pass
            time.sleep(0.2)
        raise TimeoutError(f"Not at rest after {within_s} s: {self.rows(on_the_way)} objects or deliveries are on their way.")

    def kill(self, name: str) -> None:
        """`kill -9` the child whose name contains `name`, with all that it started."""
        for process in reversed(self._processes(name)):  # the parent first, before it hears of its children's end
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def pause(self, name: str) -> None:
        """Stop the child whose name contains `name` in its tracks (SIGSTOP): it is there and does not answer."""
        for process in self._processes(name):
            process.suspend()

    def resume(self, name: str) -> None:
        """Let go on what `pause` stopped."""
        for process in self._processes(name):
            process.resume()

    def _processes(self, name: str) -> list[psutil.Process]:
        def running() -> list[ChildState]:
            return [child for child in self.state.children if name in child.name and is_running(child.pid, child.start_time)]

        # It may have ended a moment ago, also by itself, and be started again.
        process = psutil.Process(eventually(running, what=f"a process that runs {name}")[0].pid)
        return [*process.children(recursive=True), process]


@contextmanager
def alone_on_this_machine() -> Iterator[None]:
    """Waits until no other process of tests or benchmarks starts a Hilum: between being chosen and being listened on, ports are free."""
    with (Path(tempfile.gettempdir()) / f"hilum-starts-{os.getuid()}").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def running_hilum(
    folder: Path,
    pacs_port: int,
    more: str = "",
    *,
    port: int = 0,
    images_only: bool = False,
    pacs: str = "",
    servers: Settings | None = None,
) -> Iterator[RunningHilum]:
    """`hilum up` on `folder`, delivering everything to the archive and to `pacs_port`; `hilum down` on the way out.

    Its listener has `port`; 0: a free one. It has the roles that `more` says; else those that are the default, or with `images_only`
    those of images. `pacs` are further settings of the destination at `pacs_port`. It runs Kafka, PostgreSQL and S3 itself, unless
    `servers` has settings of such that run.
    """
    if images_only:
        more += f"\n{IMAGES_ONLY}"
    elif "[hl7]" not in more:
        more += "\n[hl7]\nport = 0\n"
    if servers is not None:
        more += SERVERS.format(kafka=servers.kafka, postgres=servers.postgres, s3=servers.s3)
    config = folder / "hilum.toml"
    forget_environment()
    config.write_text(SETTINGS.format(data=folder / "data", port=port, pacs_port=pacs_port, pacs=pacs) + more, encoding="utf-8")
    with alone_on_this_machine():
        began = time.monotonic()
        up = json.loads(hilum("up", "--config", config, "--detach", "--json").stdout)
        ready_s = time.monotonic() - began
    try:
        yield RunningHilum(config, up, ready_s)
    finally:
        hilum("down", "--config", config)
