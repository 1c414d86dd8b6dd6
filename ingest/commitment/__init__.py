"""The role `commitment`: decides on requests for storage commitment, and reports to SCUs whose association is gone (PS3.4 J).

The receiver keeps requests (`ingest/dicom/commitment.py`) and reports on their own association while that lives. `decide` says what
is committed, by the `evidence` of index and object store; `report` speaks to the SCUs. One worker serves a spool; another that is
started on the same spool stands by.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from hilum import telemetry
from hilum.commitments import Commitments, Request
from hilum.dicom.commitment import reason_text
from hilum.errors import Misconfigured, TryAgain
from hilum.role import Health, Role
from hilum.settings import Commitment as Terms
from hilum.settings import Settings
from hilum.spool import Spool
from hilum.store import open_store
from hilum.words import counted

from .decide import Decider, Decision
from .evidence import Database, Way
from .report import Reporter, tls_of

log = telemetry.logger("commitment")

#: How often the requests are looked at.
LOOK_S = 0.25
#: A request that waits is looked at again after a tenth of its age, at most after so long.
LONGEST_LOOK_S = 5.0
#: How often it is put down what a request waits for.
SAY_S = 5.0
#: How long nothing is decided after something was found to be misconfigured.
PAUSE_S = 10.0
FORGET_S = 3600.0
_DISK = "disk"


class Committer:
    """The role."""

    name = "commitment"

    def __init__(
        self,
        terms: Terms,
        commitments: Commitments,
        decider: Callable[[Callable[[], bool]], Decider],
        reporter: Reporter,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`decider` makes one that stops when the function that it is given says so."""
        self._terms = terms
        self._commitments = commitments
        self._make_decider = decider
        self._reporter = reporter
        self._now = now
        self._look_at: dict[str, float] = {}
        self._said_at: dict[str, float] = {}
        self._held_until = 0.0
        self._forget_at = 0.0
        #: What keeps requests from being decided on, by their ids, and what is wrong with the disk.
        self._troubles: dict[str, str] = {}
        self._standing_by = False
        self._states: Counter[str] = Counter()
        self._unreachable: tuple[int, str] = (0, "")

    def run(self, stop: threading.Event) -> None:
        """Decide and report until `stop`."""
        while not stop.is_set():
            with self._commitments.alone() as alone:
                self._standing_by = not alone
                if alone:
                    decider = self._make_decider(stop.is_set)
                    while not stop.is_set():
                        self.step(decider)
                        stop.wait(LOOK_S)
            stop.wait(1.0)

    def health(self) -> Health:
        """What waits, and for what. An SCU that cannot be reached is no fault of this process."""
        if self._standing_by:
            return Health(ready=True, says="stands by: another process answers the requests of this spool")
        trouble = next(iter(list(self._troubles.values())), "")
        said = [trouble] if trouble else []
        count, says = self._unreachable
        if count:
            said.append(f"{counted(count, 'report')} could not be delivered yet: {says}")
        said = said or [f"{counted(self._states['asked'], 'request')} waiting for objects, {self._states['decided']} for their SCU"]
        return Health(ready=not trouble, says=" ".join(said), lag=sum(self._states.values()))

    def step(self, decider: Decider) -> None:
        """One round over all that is open."""
        try:
            requests = self._commitments.open()
            self._decide(decider, requests)
            self._reporter.tell([request for request in requests if request.state == "decided" and self._is_due(request)])
            self._tidy(requests)
            self._troubles.pop(_DISK, None)
        except OSError as error:
            self._troubles[_DISK] = f"The spool's disk fails: {error.strerror}."

    def _decide(self, decider: Decider, requests: list[Request]) -> None:
        """Decide on what can be decided now. After an outage the others have to wait a little too, but none for ever for another."""
        for request in requests:
            now = time.monotonic()
            if now < self._held_until:
                return
            if request.state != "asked" or now < self._look_at.get(request.id, 0.0):
                continue
            age_s = (self._now() - request.asked_at).total_seconds()
            self._look_at[request.id] = now + min(LONGEST_LOOK_S, max(LOOK_S, age_s / 10))
            try:
                self._look(decider, request)
                self._troubles.pop(request.id, None)
            except (TryAgain, Misconfigured) as error:
                self._held_until = now + (error.after_s if isinstance(error, TryAgain) else PAUSE_S)
                self._fails(request, str(error))
            except OSError:
                raise
            except Exception as error:  # a fault of ours on one request must not stop the others
                self._fails(request, telemetry.described(error))

    def _fails(self, request: Request, says: str) -> None:
        if says not in self._troubles.values():
            log.warning("commitment_waits", uid=request.transaction_uid, says=says)
        self._troubles[request.id] = says
        self._say(request, says)

    def _look(self, decider: Decider, request: Request) -> None:
        commitment = self._commitments.get(request.id)
        if commitment is None:
            return
        found = decider.look(commitment)
        if not isinstance(found, Decision):
            if found.soon:
                self._look_at[request.id] = 0.0
            self._say(request, found.says)
            return
        failed = Counter(reason_text(failure.reason) for failure in found.failures)
        says = ", ".join(f"{count} {reason}" for reason, count in sorted(failed.items()))
        self._commitments.change(
            request.id, state="decided", decided_at=self._now(), failures=found.failures, failed=len(found.failures), says=says
        )
        decider.forget(request.id)
        committed = commitment.objects - len(found.failures)
        telemetry.COMMITMENT_OBJECTS.labels(outcome="committed").inc(committed)
        for reason, count in failed.items():
            telemetry.COMMITMENT_OBJECTS.labels(outcome=reason).inc(count)
        log.info("commitment_decided", uid=commitment.transaction_uid, calling_aet=commitment.calling_aet, count=committed, says=says)

    def _say(self, request: Request, says: str) -> None:
        """Put down what a request waits for, if that has changed, and not too often."""
        now = time.monotonic()
        if says != request.says and now >= self._said_at.get(request.id, 0.0):
            self._said_at[request.id] = now + SAY_S
            self._commitments.change(request.id, says=says)

    def _is_due(self, request: Request) -> bool:
        """Whether it is to be reported now, on a new association. One whose time is over is given up."""
        if self._commitments.lives(request.association):
            return False
        known, now = self._reporter.node_of(request.calling_aet) is not None, self._now()
        since = request.decided_at or request.asked_at
        if now - since > timedelta(days=self._terms.retry_days) and (request.attempts or not known):
            log.warning("commitment_given_up", uid=request.transaction_uid, calling_aet=request.calling_aet, attempts=request.attempts)
            telemetry.COMMITMENTS_ENDED.labels(state="given-up").inc()
            self._commitments.finish(request.id, state="given-up", ended_at=now, says=f"given up: {request.says}")
            return False
        if not known:
            self._say(request, f"The settings do not say where {request.calling_aet} listens: add [peers.{request.calling_aet}].")
        return known and (request.not_before is None or request.not_before <= now)

    def _tidy(self, requests: list[Request]) -> None:
        for request in requests:
            if request.state in ("reported", "given-up"):  # a crash came in between
                self._commitments.finish(request.id)
        self._states = Counter(request.state for request in requests)
        for state in ("asked", "decided"):
            telemetry.COMMITMENTS_OPEN.labels(state=state).set(self._states[state])
        waiting = [request for request in requests if request.state == "decided" and self._in_vain(request)]
        self._unreachable = (len(waiting), waiting[-1].says if waiting else "")
        ids = {request.id for request in requests}
        for known in (self._look_at, self._said_at, self._troubles):
            for id_ in known.keys() - ids - {_DISK}:
                del known[id_]
        if time.monotonic() >= self._forget_at:
            self._forget_at = time.monotonic() + FORGET_S
            self._commitments.forget_before(self._now() - timedelta(days=self._terms.keep_days))

    def _in_vain(self, request: Request) -> bool:
        known = self._reporter.node_of(request.calling_aet) is not None
        return request.attempts > 0 or not (known or self._commitments.lives(request.association))


def check(settings: Settings) -> None:
    """Raise `Misconfigured` if what the settings say of TLS to a peer cannot be used."""
    for name, node in settings.peers.items():
        if (tls := tls_of(f"peers.{name}", node)) is not None:
            tls.context()
        elif node.tls_ca or node.tls_certificate or node.tls_key:
            raise Misconfigured(
                "tls-off",
                f"peers.{name} names files for TLS, and no TLS is spoken to it.",
                fix=f"Set peers.{name}.tls = true, or leave the files out.",
            )


def role(settings: Settings) -> Role:
    """The role `commitment`. Raises `Misconfigured` if the spool or the store's settings cannot be used."""
    commitments = Commitments.of(settings)
    spool, store = Spool.of(settings), open_store(settings)

    def decider(stopping: Callable[[], bool]) -> Decider:
        database = Database(settings)
        return Decider(database, Way(settings, spool, database), store, settings.commitment.wait_s, stopping=stopping)

    return Committer(settings.commitment, commitments, decider, Reporter(commitments, settings.peers))
