"""The work of the role `worklist`: keep the file of steps as the orders say, and tell Kafka of performed steps."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from hilum import bus, telemetry
from hilum.errors import Misconfigured, TryAgain
from hilum.order_events import Order
from hilum.procedures import Procedures
from hilum.role import Health
from hilum.services.files import private_folder
from hilum.settings import Settings
from hilum.words import counted
from hilum.worklist import Worklist

from .items import items_of
from .packed import pack
from .source import Open, Source, states_that_end
from .telling import Teller

log = telemetry.logger("worklist")

_TELL_S = 0.25
_FORGET_S = 3600.0
_DAY_S = 86_400.0


class Orders(Protocol):
    """Where scheduled steps come from; `source.Source` is the database, tests have lists."""

    def open(self) -> list[Open]:
        """The steps that wait. Raises `TryAgain` and `Misconfigured`."""
        ...

    def orders(self, order_ids: Iterable[str]) -> Mapping[str, Order]:
        """These orders as they are now. Raises as `open`."""
        ...


class Keeper:
    """The role."""

    name = "worklist"

    def __init__(self, settings: Settings, orders: Orders, worklist: Worklist, procedures: Procedures, teller: Teller) -> None:
        self._settings = settings
        self._orders = orders
        self._worklist = worklist
        self._procedures = procedures
        self._teller = teller
        self._known: dict[str, str] | None = None
        self._ended_steps: set[tuple[str, str]] = set()
        self._ended_as_of = -1
        self._standing_by = False
        self._refresh_at = 0.0
        self._forget_at = 0.0
        self._troubles: dict[str, str] = {"start": "starting"}
        #: Those of `_troubles` that the disk makes.
        self._of_disk: set[str] = set()

    def run(self, stop: threading.Event) -> None:
        """Keep and tell until `stop`. Of several on one spool, one works and the others stand by."""
        while not stop.is_set():
            try:
                with _alone(self._settings.spool_dir / "worklist.lock") as alone:
                    self._standing_by = not alone
                    while alone and not stop.is_set():
                        self.step()
                        stop.wait(min(_TELL_S, self._settings.worklist.refresh_s))
            except OSError as error:
                self._standing_by = False
                self._disk_fails("start", error)
            stop.wait(1.0)

    def step(self) -> None:
        """One round. What is away is said, and tried again in the next."""
        self._troubles.pop("start", None)
        self._of_disk.discard("start")
        now = time.monotonic()
        if now >= self._refresh_at:
            self._refresh_at = now + self._settings.worklist.refresh_s
            self._try("orders", self.refresh)
        self._try("kafka", self._tell)
        if now >= self._forget_at:
            self._forget_at = now + _FORGET_S
            self._try("disk", self._forget)

    def health(self) -> Health:
        """How many steps there are, and what it waits for."""
        if self._standing_by:
            return Health(ready=True, says="stands by: another process keeps the worklist of this spool")
        troubles = dict(self._troubles)
        # Were it not ready while the disk is full, a Hilum whose spool has run full would not start, nor its publisher empty it.
        ready = troubles.keys() <= self._of_disk
        return Health(ready=ready, says=" ".join(troubles.values()) or f"{counted(len(self._known or ()), 'step')} on the worklist")

    def refresh(self) -> None:
        """Make the file of steps what the orders say. Raises `TryAgain`, `Misconfigured` and `OSError`."""
        if self._known is None:
            self._known = self._worklist.versions()
        ended = self._ended()
        steps = {step.id: step for step in self._orders.open() if (step.study_instance_uid, step.step_id) not in ended}
        changed = [step for step in steps.values() if self._known.get(step.id) != str(step.version)]
        orders = self._orders.orders({step.order_id for step in changed})
        put: dict[str, tuple[str, bytes]] = {}
        for order_id, order in orders.items():
            for place, item in items_of(order):
                id_ = f"{order_id}/{place.procedure}/{place.step}"
                if id_ in steps and self._known.get(id_) != str(order.version):
                    put[id_] = (str(order.version), pack(item))
        gone = self._known.keys() - steps.keys()
        self._worklist.put(put, gone)
        for id_ in gone:
            del self._known[id_]
        self._known |= {id_: version for id_, (version, _) in put.items()}
        if put or gone:
            log.info("worklist_changed", count=len(put), rows=len(self._known))

    def _ended(self) -> set[tuple[str, str]]:
        """Steps that modalities of this machine have begun or ended, by study and step id: known before Kafka and the index hear of it."""
        version = self._procedures.version
        if version != self._ended_as_of:
            states = states_that_end(self._settings.worklist.leaves)
            scheduled = self._procedures.scheduled()
            self._ended_steps = {(study, step) for study, step, state, wrong_entry in scheduled if state in states and not wrong_entry}
            # A change within the same tick of the file system's clock may come after this look.
            self._ended_as_of = version if time.time_ns() - version > 50_000_000 else -1
        return self._ended_steps

    def _tell(self) -> None:
        self._teller.tell()
        telemetry.PROCEDURE_STEPS_WAITING.set(self._procedures.waiting())

    def _forget(self) -> None:
        self._procedures.forget_before(time.time() - self._settings.worklist.remember_days * _DAY_S)

    def _try(self, what: str, work: Callable[[], None]) -> None:
        try:
            work()
            self._troubles.pop(what, None)
            self._of_disk.discard(what)
        except (TryAgain, Misconfigured) as error:
            self._of_disk.discard(what)
            self._says(what, str(error))
        except OSError as error:
            self._known = None
            self._disk_fails(what, error)
        except Exception as error:  # a fault of ours with one order must not end the role
            self._says(what, telemetry.described(error))

    def _disk_fails(self, what: str, error: OSError) -> None:
        self._of_disk.add(what)
        self._says(what, f"The spool's disk fails: {error.strerror}.")

    def _says(self, what: str, says: str) -> None:
        if self._troubles.get(what) != says:
            log.warning("worklist_waits", says=says)
        self._troubles[what] = says


@contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Whether nobody else holds the lock; then nobody will until the block ends. Raises `OSError`."""
    private_folder(path.parent)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)


def keeper(settings: Settings) -> Keeper:
    """The role as it runs. Its files are made as it begins: the roles beside it do not wait for them."""
    worklist, procedures = Worklist(settings), Procedures(settings)
    teller = Teller(settings, procedures, lambda: bus.producer(settings))
    return Keeper(settings, Source(settings), worklist, procedures, teller)
