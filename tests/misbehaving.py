"""A storage SCP that plays what products are known to do, and what none should: for tests, and by hand.

    ./dev python -m tests.misbehaving aborts_every 3 --port 11113

It keeps what it was sent, unless it plays one that does not. Each behaviour is a function that makes an `Answer`.
"""

from __future__ import annotations

import argparse
import inspect
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO

from pydicom.dataset import Dataset
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at run time there
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

SUCCESS = 0x0000
#: Statuses of a C-STORE response: the storage service's (PS3.4 Table B.2-1), with more than one of each range, and the general ones
#: (PS3.7 Annex C).
STORAGE_STATUSES = (0x0000, 0xA700, 0xA7FF, 0xA900, 0xA9FF, 0xB000, 0xB006, 0xB007, 0xC000, 0xCFFF)
GENERAL_STATUSES = (
    *(0x0001, 0x0105, 0x0106, 0x0107, 0x0110, 0x0111, 0x0112, 0x0113, 0x0114, 0x0115, 0x0116, 0x0117, 0x0118, 0x0119),
    *(0x0120, 0x0121, 0x0122, 0x0123, 0x0124, 0x0210, 0x0211, 0x0212, 0x0213, 0xFE00, 0xFF00, 0xFF01),
)
EVERY_STATUS = (*STORAGE_STATUSES, *GENERAL_STATUSES)


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """One C-STORE request, with its data set."""

    uid: str
    data_set: bytes
    #: Its number among all requests, from 1.
    number: int
    #: How often this SOP instance has come, this time included.
    times: int
    #: The number of its SOP instance among all, from 1.
    instance: int
    event: evt.Event
    peer: Scp


#: What to do with a request: the status to answer. Only what is kept with `Arrival.peer.keep` is there afterwards.
Answer = Callable[[Arrival], int]


class Scp:
    """A storage SCP on 127.0.0.1 that answers as `answer` says."""

    def __init__(
        self,
        answer: Answer,
        *,
        port: int = 0,
        aet: str = "PACS",
        contexts: Iterable[tuple[str, str]] | None = None,
        associations: int = 100,
    ) -> None:
        """Without `contexts` it takes every storage SOP class that pynetdicom knows, in every transfer syntax."""
        #: Digests of the data sets that it has, by SOP Instance UID.
        self.kept: dict[str, set[str]] = {}
        #: What it says that it has, when it is asked: study, series, instance and SOP class.
        self.has: dict[str, tuple[str, str, str, str]] = {}
        #: How often each instance came.
        self.came: Counter[str] = Counter()
        #: Transfer syntaxes in which each instance came.
        self.syntaxes: dict[str, list[str]] = {}
        self.ended = threading.Event()
        self._answer = answer
        self._order: dict[str, int] = {}
        self._lock = threading.Lock()
        ae = AE(aet)
        ae.maximum_pdu_size = 0
        ae.maximum_associations = associations
        ae.add_supported_context(Verification)
        ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        if contexts is None:
            for context in AllStoragePresentationContexts:
                ae.add_supported_context(str(context.abstract_syntax), ALL_TRANSFER_SYNTAXES)
        for sop_class, transfer_syntax in contexts or ():
            ae.add_supported_context(sop_class, transfer_syntax)
        server = ae.start_server(
            ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store), (evt.EVT_C_FIND, self._find)]
        )
        assert server is not None
        self._server = server
        self.port: int = server.server_address[1]

    def keep(self, arrival: Arrival) -> None:
        """Have it."""
        ds = arrival.event.dataset
        with self._lock:
            self.kept.setdefault(arrival.uid, set()).add(sha256(arrival.data_set).hexdigest())
            uids = (ds.get(keyword, "") for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"))
            study, series, instance, sop_class = map(str, uids)
            self.has[arrival.uid] = (study, series, instance, sop_class)

    def close(self) -> None:
        """Take no more associations and end those that are open. May be repeated."""
        if self.ended.is_set():
            return
        self.ended.set()
        assert self._server.socket is not None
        self._server.socket.close()
        for association in self._server.active_associations:
            if association.is_established:
                association.abort(block=False)
        threading.Thread(target=self._server.shutdown, daemon=True).start()  # its loop looks twice a second

    def _store(self, event: evt.Event) -> Dataset:
        request = event.request
        assert isinstance(request, C_STORE)
        assert isinstance(request.DataSet, BytesIO)
        uid = str(request.AffectedSOPInstanceUID)
        with self._lock:
            self.came[uid] += 1
            instance = self._order.setdefault(uid, len(self._order) + 1)
            number, times = self.came.total(), self.came[uid]
            self.syntaxes.setdefault(uid, []).append(str(event.context.transfer_syntax))
        status = self._answer(
            Arrival(
                uid=uid,
                data_set=request.DataSet.getvalue(),
                number=number,
                times=times,
                instance=instance,
                event=event,
                peer=self,
            )
        )
        answer = Dataset()
        answer.Status = status
        if status != SUCCESS:
            answer.ErrorComment = words_of(status)
        return answer

    def _find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        """Instances, by the UIDs of their study and series (PS3.4 C.6.2)."""
        asked = event.identifier
        wanted = [str(asked.get(keyword, "")) for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")]
        with self._lock:
            found = list(self.has.values())
        for study, series, instance, sop_class in found:
            if all(uid in ("", has) or has in uid.split("\\") for uid, has in zip(wanted, (study, series, instance), strict=True)):
                answer = Dataset()
                answer.QueryRetrieveLevel = asked.get("QueryRetrieveLevel", "IMAGE")
                answer.StudyInstanceUID, answer.SeriesInstanceUID = study, series
                answer.SOPInstanceUID, answer.SOPClassUID = instance, sop_class
                yield 0xFF00, answer


@contextmanager
def scp(answer: Answer, **options: object) -> Iterator[Scp]:
    """An `Scp` for as long as the block lasts."""
    running = Scp(answer, **options)  # type: ignore[arg-type]  # passed through
    try:
        yield running
    finally:
        running.close()


def words_of(status: int) -> str:
    """The Error Comment that comes with a status: the peer's own words."""
    return f"peer says {status:04X}"


def says_kept(status: int) -> bool:
    """Whether by the standard the peer has the object that it answered so: success, a warning, a duplicate."""
    return status in (0x0000, 0x0001, 0x0107, 0x0111, 0x0116) or status >> 12 == 0xB


# Behaviours


def healthy() -> Answer:
    """Take everything."""

    def answer(arrival: Arrival) -> int:
        arrival.peer.keep(arrival)
        return SUCCESS

    return answer


def aborts_every(n: int) -> Answer:
    """Take the data of every `n`-th request and abort the association instead of answering."""

    def answer(arrival: Arrival) -> int:
        if arrival.number % n == 0:
            arrival.event.assoc.abort(block=False)
        else:
            arrival.peer.keep(arrival)
        return SUCCESS

    return answer


def hangs_up_every(n: int) -> Answer:
    """Keep everything; close the TCP connection of every `n`-th request after its data, before the answer."""

    def answer(arrival: Arrival) -> int:
        arrival.peer.keep(arrival)
        if arrival.number % n == 0:
            transport = arrival.event.assoc.dul.socket
            assert transport is not None
            assert transport.socket is not None
            transport.socket.shutdown(socket.SHUT_RDWR)
        return SUCCESS

    return answer


def answers_after(seconds: float, every: int = 1) -> Answer:
    """Keep everything; answer for every `every`-th instance only after so long, however often it comes."""

    def answer(arrival: Arrival) -> int:
        arrival.peer.keep(arrival)
        if arrival.instance % every == 0:
            arrival.peer.ended.wait(seconds)
        return SUCCESS

    return answer


def answers(*statuses: int) -> Answer:
    """Answer the instances with these statuses in turn, each instance always with the same; keep what they say is kept."""

    def answer(arrival: Arrival) -> int:
        status = statuses[(arrival.instance - 1) % len(statuses)]
        if says_kept(status):
            arrival.peer.keep(arrival)
        return status

    return answer


def refuses_at_first(times: int, *statuses: int) -> Answer:
    """Answer each instance so many times with one of these statuses, in turn, and take it then; at once where it is Success."""

    def answer(arrival: Arrival) -> int:
        status = statuses[(arrival.instance - 1) % len(statuses)]
        if arrival.times <= times and status != SUCCESS:
            return status
        arrival.peer.keep(arrival)
        return SUCCESS

    return answer


def forgets() -> Answer:
    """Answer Success to everything, and have nothing."""
    return lambda _: SUCCESS


BEHAVIOURS: dict[str, Callable[..., Answer]] = {
    made.__name__: made for made in (healthy, aborts_every, hangs_up_every, answers_after, answers, refuses_at_first, forgets)
}


def main() -> None:
    """Play one behaviour until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m tests.misbehaving", description="A storage SCP that misbehaves.")
    listed = "; ".join(f"{name}{inspect.signature(made)}: {made.__doc__}" for name, made in BEHAVIOURS.items())
    parser.add_argument("behaviour", choices=BEHAVIOURS, help=listed.replace(" -> 'Answer'", "").replace("%", "%%"))
    parser.add_argument("arguments", nargs="*", help="Numbers; statuses as 0xA700.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--associations", type=int, default=100, help="Take at most so many at a time.")
    parser.add_argument("--no-contexts", action="store_true", help="Accept no presentation context but C-ECHO's.")
    asked = parser.parse_args()
    numbers = [float(text) if "." in text else int(text, 0) for text in asked.arguments]
    running = Scp(
        BEHAVIOURS[asked.behaviour](*numbers),
        port=asked.port,
        associations=asked.associations,
        contexts=() if asked.no_contexts else None,
    )
    print(f"PACS on 127.0.0.1:{running.port}: {asked.behaviour}. Ctrl-C ends it.", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        running.close()
        print(f"{running.came.total()} requests for {len(running.came)} instances; has {len(running.kept)}.", file=sys.stderr)


if __name__ == "__main__":
    main()
