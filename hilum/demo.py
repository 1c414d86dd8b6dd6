"""The demo: real servers, a real PACS, real sample objects, a synthetic study that was ordered by HL7, and the account of it all."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from hilum.demo_order import OrderStory, Step
from hilum.errors import HilumError, Reason
from hilum.peer import Peer
from hilum.reconcile import Account
from hilum.services.ports import Ports
from hilum.settings import Settings, forget_environment, load
from hilum.up import hl7_of, listener_of

SETTINGS = """\
data = "{data}"

[dicom]
aet = "HILUM"
port = 0

[hl7]
port = 0

[destinations.archive]
type = "archive"

[destinations.pacs]
type = "dicom"
host = "127.0.0.1"
port = {pacs_port}
aet = "PACS"

[[rules]]
name = "everything"
when = "true"
to = ["archive", "pacs"]
"""

#: How long everything may take to arrive, in seconds.
ARRIVES_WITHIN_S = 300.0

Progress = Callable[[str, int | None, int | None], None]
#: Told what happens now, and how much of how much of it is done.


class StageTime(Struct, frozen=True, kw_only=True):
    """Milliseconds since the object was received, over all objects that reached the stage."""

    stage: str
    objects: int
    median_ms: float
    p95_ms: float


class QuarantinedBecause(Struct, frozen=True, kw_only=True):
    """How many objects wait for a person for one reason."""

    reason: str
    sentence: str
    objects: int


class NotStored(Struct, frozen=True, kw_only=True):
    """A file for which Hilum's listener did not answer Success."""

    file: str
    #: The listener's status, as `0x0000`; `not sent` or `no answer` where there is none.
    status: str
    why: str


class Result(Struct, frozen=True, kw_only=True):
    """What the demo shows in the end.

    `ok`: everything that was acknowledged is accounted for, nothing waits, the synthetic study came whole and fits its order, and the
    PACS has what the ledger says.
    """

    ok: bool
    #: What became of one order.
    order: list[Step]
    sent: int
    not_stored: list[NotStored]
    account: dict[str, object]
    at_the_pacs: int
    quarantined: list[QuarantinedBecause]
    stages: list[StageTime]
    seconds: dict[str, float]


class Demo:
    """One run of the demo, in `folder`. `stop` ends whatever runs, whenever it is called."""

    def __init__(self, folder: Path, slices: int, progress: Progress) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.config = folder / "hilum.toml"
        self._slices = slices
        self._progress = progress
        self._pacs: subprocess.Popen[bytes] | None = None

    def run(self) -> Result:
        """Do it all. Raises `HilumError` if a part does not start."""
        from hilum.reconcile import reconcile
        from hilum.services.endpoints import with_endpoints
        from hilum.up import start

        began = time.monotonic()
        seconds: dict[str, float] = {}
        pacs_port = Ports(self.data).take("pacs.port", "127.0.0.1")
        self.config.write_text(SETTINGS.format(data=self.data, pacs_port=pacs_port), encoding="utf-8")
        self._progress("Starting the PACS", None, None)
        self._start_pacs(pacs_port)
        self._progress("Starting Kafka, PostgreSQL, the object store and Hilum's roles", None, None)
        forget_environment()  # what another Hilum is told there is not for this one, nor for its processes
        settings = load(self.config).settings
        start(settings, self.config)
        settings = with_endpoints(settings)
        seconds["start"] = time.monotonic() - began

        began = time.monotonic()
        modality = Peer(host="127.0.0.1", port=listener_of(settings).port, aet=settings.dicom.aet, calling_aet="DEMO_CT")
        hl7 = hl7_of(settings)
        assert hl7 is not None
        story = OrderStory(settings, modality, hl7)
        story.order()
        samples = self._samples()
        refused = self._send(samples, modality, "pydicom's sample objects")
        seconds["send"] = time.monotonic() - began
        study = story.worklist()
        story.begin()
        self._progress("Making a synthetic CT study", None, None)
        synthetic, series, instances = self._synthetic(study)
        sending = time.monotonic()
        refused += self._send(synthetic, modality, f"a CT study of {len(synthetic)} slices")
        seconds["send"] += time.monotonic() - sending
        story.end(series, instances)
        self._wait(settings)
        seconds["until all arrived"] = time.monotonic() - began
        self._progress("Holding the study against its order", None, None)
        story.matched(study)
        self._progress("Reconciling", None, None)
        account = last_account(lambda: reconcile(settings))
        return self._result(settings, account, len(samples) + len(synthetic), refused, seconds, story.steps)

    def stop(self) -> None:
        """End Hilum, its servers and the PACS."""
        from hilum.services.up import down

        with suppress(HilumError):
            down(self.data)
        if self._pacs is not None:
            self._pacs.send_signal(signal.SIGTERM)
            self._pacs.wait(15)

    def _start_pacs(self, port: int) -> None:
        self._pacs = subprocess.Popen(
            [sys.executable, "-m", "hilum.demo_pacs", str(port), str(self.folder / "pacs"), str(self.data)],
            start_new_session=True,
        )
        end = time.monotonic() + 20
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.05)
        raise HilumError("The demo's PACS does not listen.", fix="Try again; if it stays so, install dcmtk.")

    def _samples(self) -> list[Path]:
        """The test objects that come with pydicom: all that can be announced, good or bad."""
        import pydicom.data

        return sorted(Path(pydicom.data.__file__).parent.rglob("*.dcm"))

    def _synthetic(self, study_instance_uid: str) -> tuple[list[Path], str, list[tuple[str, str]]]:
        """A study as its worklist says: its files, its series, and the class and UID of each instance."""
        from pydicom import dcmread

        from hilum.synthetic import write_ct_study

        paths = write_ct_study(self.folder / "synthetic", self._slices, study_instance_uid=study_instance_uid)
        headers = [dcmread(path, specific_tags=["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID"]) for path in paths]
        return paths, str(headers[0].SeriesInstanceUID), [(str(each.SOPClassUID), str(each.SOPInstanceUID)) for each in headers]

    def _send(self, files: Sequence[Path], peer: Peer, what: str) -> list[NotStored]:
        """Send as a modality would; what was not stored, and why."""
        from hilum.scu import Outgoing, outgoing, reason_of, send_all, status_of

        refused: list[NotStored] = []
        ready: list[Outgoing] = []
        for path in files:
            try:
                ready.append(outgoing(path))
            except HilumError:
                refused.append(NotStored(file=path.name, status="not sent", why="no SOP class, SOP instance or transfer syntax"))
        self._progress(f"Sending {what}", 0, len(ready))
        for number, (sent, answer) in enumerate(send_all(peer, ready), 1):
            self._progress(f"Sending {what}", number, len(ready))
            if status_of(answer) != "0x0000":
                refused.append(NotStored(file=sent.path.name, status=status_of(answer), why=reason_of(answer)))
        return refused

    def _wait(self, settings: Settings) -> None:
        """Until nothing is on its way any more; shows how much of what is known of has arrived."""
        import psycopg

        end = time.monotonic() + ARRIVES_WITHIN_S
        still = 0
        with psycopg.connect(settings.postgres.dsn, autocommit=True) as connection:
            while time.monotonic() < end and still < 3:
                [(receipts, open_receipts, deliveries, pending)] = connection.execute(_ON_THE_WAY).fetchall()
                spooled = sum(1 for _ in (settings.spool_dir / "objects").glob("*.dcm"))
                total = deliveries + spooled + open_receipts
                self._progress("Archiving, delivering, indexing", total - pending - spooled - open_receipts, max(total, 1))
                still = still + 1 if receipts and not (open_receipts or pending or spooled) else 0
                time.sleep(0.2)

    def _result(
        self,
        settings: Settings,
        account: Account,
        files: int,
        not_stored: list[NotStored],
        seconds: dict[str, float],
        order: list[Step],
    ) -> Result:
        import psycopg

        with psycopg.connect(settings.postgres.dsn, autocommit=True) as connection:
            reasons = connection.execute(_QUARANTINED).fetchall()
            stages = connection.execute(_STAGES).fetchall()
            [(delivered_there,)] = connection.execute("SELECT count(*) FROM delivery WHERE destination = 'pacs' AND state = 'delivered'")
        at_the_pacs = sum(1 for _ in (self.folder / "pacs").glob("*.dcm"))
        is_whole = account.ok and account.pending == 0 and account.received >= files - len(not_stored) and at_the_pacs >= delivered_there
        return Result(
            ok=is_whole and all(each.ok for each in order),
            order=order,
            sent=files,
            not_stored=not_stored,
            account=msgspec.to_builtins(account),
            at_the_pacs=at_the_pacs,
            quarantined=[QuarantinedBecause(reason=r, sentence=Reason(r).meaning, objects=n) for r, n in reasons],
            stages=[StageTime(stage=s, objects=n, median_ms=round(m, 1), p95_ms=round(p, 1)) for s, n, m, p in stages if n],
            seconds={name: round(value, 1) for name, value in seconds.items()},
        )


def last_account(look: Callable[[], Account], within_s: float = ARRIVES_WITHIN_S) -> Account:
    """The account once nothing is on its way any more, or that after `within_s`. What is between two stages is in none of their tables."""
    end = time.monotonic() + within_s
    while not (account := look()).at_rest and time.monotonic() < end:
        time.sleep(0.2)
    return account


_ON_THE_WAY = """
SELECT count(*),
       count(*) FILTER (WHERE decision IS NULL AND quarantine_reason IS NULL),
       (SELECT count(*) FROM delivery),
       (SELECT count(*) FROM delivery WHERE state = 'pending')
FROM receipt
"""

_QUARANTINED = "SELECT quarantine_reason, count(*) FROM receipt WHERE quarantine_reason IS NOT NULL GROUP BY 1 ORDER BY 2 DESC"

_STAGES = """
WITH reached AS (
    SELECT 1 AS step, 'accepted' AS stage, accepted_at - received_at AS took FROM receipt WHERE accepted_at IS NOT NULL
    UNION ALL SELECT 2, 'routed', decided_at - received_at FROM receipt WHERE decided_at IS NOT NULL
    UNION ALL SELECT 3, 'settled: ' || destination, settled_at - received_at FROM delivery WHERE settled_at IS NOT NULL)
SELECT stage, count(*),
       1000 * percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM took)),
       1000 * percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM took))
FROM reached GROUP BY step, stage ORDER BY step, stage
"""
