"""A session of a DICOMweb destination: what comes next goes out together, and each instance has its own outcome."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

from hilum.anonymizing import NotAnonymized
from hilum.dicom.file_meta import part10_head
from hilum.dicom.lossy import Lossy
from hilum.dicom.recode import CannotRecode
from hilum.dicom.transcode import targets_for
from hilum.edited import NotEditable, part10_of
from hilum.errors import HilumError
from hilum.outcomes import Meanings
from hilum.part10 import IN_MEMORY_BYTES, Part10, Unsound
from hilum.profiles import HttpOutcome
from hilum.rewriting import Rewritten, in_syntax, may_be_lossy, not_rewritten, sent_as, with_loss
from hilum.runtime.delivery.near import near_by
from hilum.sink import Delivery, Later, Outage, Park, Settled
from hilum.store import ObjectStore
from hilum.upper_layer import EXPLICIT_VR_LITTLE_ENDIAN, printable

from .answer import Said, read
from .body import CONTENT_TYPE, PIECE_BYTES, body_of, length_of
from .client import Client, Lost, Reply
from .waits import FIXES, retry_after_s

#: Objects that are read while the one before them is on its way.
_READ_AHEAD = 4
#: Answers and FailureReason by which a service says that it takes no such transfer syntax (PS3.18 8.7.3 and I.2.2, RFC 9110 15.5.16).
_OF_SYNTAX = (406, 415)
_SYNTAX_NOT_SUPPORTED = 0xC122


class Manner(Struct, frozen=True, kw_only=True):
    """How instances go out; see the settings of `Stow`."""

    instances: int
    max_request_bytes: int
    max_instance_bytes: int
    conflict: str
    meanings: Meanings
    #: Write without loss what the service does not take, in Explicit VR Little Endian.
    transcode: bool = True
    #: The only transfer syntaxes that it takes; none: it is asked.
    syntaxes: frozenset[str] = frozenset()
    #: Compress images with loss, so.
    lossy: Lossy | None = None


class _Part(NamedTuple):
    delivery: Delivery
    part10: Part10
    #: As what it goes, if not as it is.
    rewritten: Rewritten | None = None

    @property
    def uid(self) -> str:
        return self.rewritten.sop_instance_uid if self.rewritten else self.delivery.sop_instance_uid

    @property
    def syntax(self) -> str:
        return self.delivery.transfer_syntax_uid


class Requests:
    """Sends instances in requests of several. An instance whose request fails for another's sake is sent again by itself."""

    def __init__(
        self, client: Client, store: ObjectStore, manner: Manner, now: Callable[[], float] = time.monotonic, spool: Path | None = None
    ) -> None:
        """In `spool`, if there is one, objects are looked for before the store."""
        self._client = client
        self._spool = spool
        self._store = store
        self._manner = manner
        self._now = now
        self._coming: list[Delivery] = []
        self._done: dict[str, Settled | HilumError] = {}
        self._not_before = 0.0
        self._max_request_bytes = manner.max_request_bytes
        self._told = ""
        #: Transfer syntaxes of which the service took another one instead.
        self._not_taken: set[str] = set()
        self._reads = ThreadPoolExecutor(2, thread_name_prefix="stow reads")

    def begin(self, deliveries: Sequence[Delivery]) -> None:
        """See `Session.begin`."""
        self._coming, self._done = list(deliveries), {}

    def deliver(self, delivery: Delivery, part10: Part10) -> Settled:
        """See `Session.deliver`."""
        if delivery.delivery_id not in self._done:
            if self._now() < self._not_before:
                raise Outage(self._told, fix="Hilum waits as long as the service asks for.")
            try:
                self._send(self._next(_Part(delivery, part10)))
            except Outage:
                if delivery.delivery_id not in self._done:  # else it came after this one's own answer
                    raise
        outcome = self._done.pop(delivery.delivery_id)
        if isinstance(outcome, HilumError):
            raise outcome
        return outcome

    def awaits(self, delivery: Delivery) -> bool:
        """See `Session.awaits`: the answer tells all."""
        del delivery
        return False

    def rest(self) -> None:
        """See `Session.rest`."""

    def close(self) -> None:
        """See `Session.close`."""
        self._reads.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _next(self, first: _Part) -> list[_Part]:
        """The first one and those after it that go with it in one request."""
        parts, manner = [first], self._manner
        ids = [each.delivery_id for each in self._coming]
        rest = self._coming[ids.index(first.delivery.delivery_id) + 1 :] if first.delivery.delivery_id in ids else []
        size, uids = first.delivery.object.size_bytes, {first.uid}
        for each in rest if size <= IN_MEMORY_BYTES and not self._goes_rewritten(first.delivery) else []:
            size += each.object.size_bytes
            # One that is streamed is found to be unsound only on its way: it spoils no other's request.
            changes = each.cleaning is not None and each.cleaning.anonymizer.may_change_syntax
            alone = changes or each.object.size_bytes > IN_MEMORY_BYTES or each.sop_instance_uid in uids or each.delivery_id in self._done
            if alone or self._goes_rewritten(each) or len(parts) >= manner.instances or size > self._max_request_bytes:
                break
            uids.add(each.sop_instance_uid)
            near = partial(near_by, self._spool, each.origin) if self._spool else None
            parts.append(_Part(each, part10_of(self._store, each, near)))
        return parts

    def _send(self, parts: list[_Part]) -> None:
        """Send these in one request, and put the outcome of each into `_done`. Raises `Outage` for all."""
        if len(parts) == 1 and self._goes_rewritten(parts[0].delivery):
            self._done[parts[0].delivery.delivery_id] = self._rewritten(parts[0])
            return
        self._send_as_they_are([part for part in parts if not self._too_large(part)])

    def _send_as_they_are(self, parts: list[_Part]) -> None:
        while parts:
            for part in parts[:_READ_AHEAD]:
                part.part10.read_ahead(self._reads)
            sending: list[_Part] = []
            try:
                reply = self._post(parts, sending)
            except (NotAnonymized, NotEditable, Unsound) as unsound:
                self._done[sending[-1].delivery.delivery_id] = unsound
                parts = [part for part in parts if part is not sending[-1]]
                continue
            except Lost as lost:
                self._lost(lost, parts)
                return
            self._understand(reply, parts)
            return

    def _post(self, parts: list[_Part], sending: list[_Part]) -> Reply:
        """The answer to a request; `sending` holds those whose bytes were begun."""
        sizes = []
        for part in parts:
            sending.append(part)
            sizes.append(part.part10.size_bytes)
        sending.clear()

        def in_turn() -> Iterator[Part10]:
            for n, part in enumerate(parts):
                sending.append(part)
                for each in parts[n + _READ_AHEAD : n + _READ_AHEAD + 1]:
                    each.part10.read_ahead(self._reads)
                yield part.part10
                part.part10.forget()

        return self._client.ask("POST", "/studies", _headers(sizes), body_of(part.pieces(PIECE_BYTES) for part in in_turn()))

    # In another form

    def _goes_rewritten(self, delivery: Delivery) -> bool:
        """Whether the object is not sent as it is, at first at least. It has a request of its own."""
        manner, own = self._manner, delivery.transfer_syntax_uid
        unwanted = own in self._not_taken or (bool(manner.syntaxes) and own not in manner.syntaxes)
        return may_be_lossy(delivery, manner.lossy) or (unwanted and self._can_be_transcoded(own))

    def _can_be_transcoded(self, own: str) -> bool:
        return self._manner.transcode and EXPLICIT_VR_LITTLE_ENDIAN in targets_for(own)

    def _rewritten(self, part: _Part) -> Settled | HilumError:
        """The outcome of an object that is not to go as it is. Raises `Outage`."""
        delivery, lossy = part.delivery, self._manner.lossy
        if lossy is not None and may_be_lossy(delivery, lossy):
            try:
                with with_loss(delivery, part.part10, lossy) as made:
                    if made is not None:
                        return self._send_rewritten(part, made)
            except CannotRecode as error:
                return _not_rewritten(delivery, error, "Images are to be compressed with loss")
            except Unsound as unsound:
                return unsound
            if part.syntax not in self._not_taken and (not self._manner.syntaxes or part.syntax in self._manner.syntaxes):
                return self._send_alone(part)
        return self._transcoded(part)

    def _transcoded(self, part: _Part) -> Settled | HilumError:
        """The outcome of an object that is sent in Explicit VR Little Endian, which every service takes (PS3.18 8.7.3)."""
        try:
            with in_syntax(part.delivery, part.part10, EXPLICIT_VR_LITTLE_ENDIAN) as written:
                outcome = self._send_rewritten(part, written)
        except CannotRecode as error:
            return _not_rewritten(part.delivery, error, f"{self._client.url} takes no transfer syntax {part.syntax}")
        except Unsound as unsound:
            return unsound
        if isinstance(outcome, Settled) and outcome.state in ("delivered", "already_there"):
            self._not_taken.add(part.syntax)
        return outcome

    def _send_rewritten(self, part: _Part, rewritten: Rewritten) -> Settled | HilumError:
        delivery = part.delivery
        head = part10_head(delivery.sop_class_uid, rewritten.sop_instance_uid, rewritten.transfer_syntax_uid)
        size_bytes = len(head) + rewritten.data_set.size_bytes
        if self._manner.max_instance_bytes and size_bytes > self._manner.max_instance_bytes:
            return self._is_too_large(size_bytes)
        sending = part._replace(rewritten=rewritten)
        file = chain((head,), rewritten.data_set(PIECE_BYTES))
        try:
            self._understand(self._client.ask("POST", "/studies", _headers([size_bytes]), body_of([file])), [sending])
        except Lost as lost:
            return Later(lost.sentence, fix=lost.fix)
        outcome = self._done.pop(delivery.delivery_id)
        return sent_as(outcome, rewritten, delivery) if isinstance(outcome, Settled) else outcome

    def _send_alone(self, part: _Part) -> Settled | HilumError:
        """The outcome of an object that goes as it is after all."""
        if not self._too_large(part):
            self._send_as_they_are([part])
        return self._done.pop(part.delivery.delivery_id)

    def _too_large(self, part: _Part) -> bool:
        cleaning = part.delivery.cleaning  # what was painted over may have become larger; what is made only on its way, hardly does
        made = cleaning is not None and bool(cleaning.sha256)
        limit, size = self._manner.max_instance_bytes, part.part10.size_bytes if made else part.delivery.object.size_bytes
        if not limit or size <= limit:
            return False
        self._done[part.delivery.delivery_id] = self._is_too_large(size)
        return True

    def _is_too_large(self, size_bytes: int) -> Settled:
        limit = self._manner.max_instance_bytes
        comment = f"It has {size_bytes} bytes, and the destination takes {limit} (`max_instance_bytes`): it was not sent."
        return Settled(state="rejected", comment=comment)

    def _one_by_one(self, parts: list[_Part], outcome: Callable[[_Part], Settled | HilumError]) -> None:
        """Of several, send each again by itself; the outcome of a single one is the one given."""
        if len(parts) == 1:
            self._done[parts[0].delivery.delivery_id] = outcome(parts[0])
            return
        for part in parts:
            self._send([part])

    def _lost(self, lost: Lost, parts: list[_Part]) -> None:
        self._one_by_one(parts, lambda _: Later(lost.sentence, fix=lost.fix))

    def _understand(self, reply: Reply, parts: list[_Part]) -> None:
        status, meaning = reply.status, self._meaning(reply)
        if meaning == "outage":
            raise self._away(reply)
        said = read(reply.body)
        if status == 413 and len(parts) > 1:  # what is sent together is to be less from now on
            self._max_request_bytes = max(1, sum(part.delivery.object.size_bytes for part in parts) // 2)
        if meaning == "by_instance" or not said.nothing:
            self._by_instance(reply, said, parts)
        elif meaning == "conflict":
            self._one_by_one(parts, lambda part: self._conflict(part, reply))
        else:
            self._one_by_one(parts, lambda part: self._refused_whole(part, reply))

    def _refused_whole(self, part: _Part, reply: Reply) -> Settled | HilumError:
        if reply.status in _OF_SYNTAX and self._may_go_otherwise(part):
            return self._transcoded(part)
        return self._refused(reply)

    def _may_go_otherwise(self, part: _Part) -> bool:
        """Whether a service that does not take the object as it went may take it in another transfer syntax."""
        return part.rewritten is None and self._can_be_transcoded(part.syntax)

    def _by_instance(self, reply: Reply, said: Said, parts: list[_Part]) -> None:
        unmentioned, otherwise = [], []
        for part in parts:
            if part.uid in said.stored:
                warning = said.stored[part.uid]
                status = f"{reply.status} 0x{warning:04X}" if warning else str(reply.status)
                self._done[part.delivery.delivery_id] = Settled(state="delivered", peer_status=status)
            elif said.failed.get(part.uid) == _SYNTAX_NOT_SUPPORTED and self._may_go_otherwise(part):
                otherwise.append(part)
            elif part.uid in said.failed:
                self._done[part.delivery.delivery_id] = self._failed(part, said.failed[part.uid], reply)
            elif said.nothing and reply.status == 200:
                self._done[part.delivery.delivery_id] = Settled(
                    state="delivered", peer_status="200", comment="The answer names no instance."
                )
            else:
                unmentioned.append(part)
        for part in otherwise:
            self._done[part.delivery.delivery_id] = self._transcoded(part)
        if unmentioned:
            self._one_by_one(unmentioned, lambda part: self._unmentioned(part, said, reply))

    def _unmentioned(self, part: _Part, said: Said, reply: Reply) -> Settled | HilumError:
        if len(said.others) == 1:
            return self._failed(part, said.others[0], reply)
        return Later(f"{self._client.url} answered {reply.status} and nothing of the instance.", peer_status=str(reply.status))

    def _failed(self, part: _Part, reason: int, reply: Reply) -> Settled | HilumError:
        if reason == 0:
            return self._conflict(part, reply) if self._meaning(reply) == "conflict" else self._refused(reply)
        try:
            settled = self._manner.meanings.of_reason(self._client.url, reason, http=reply.status)
        except (Later, Park) as stop:
            return stop
        return self._conflict(part, reply) if settled is None else settled

    def _conflict(self, part: _Part, reply: Reply) -> Settled | HilumError:
        """409 without a reason: it is there already, or it cannot be stored."""
        there = self._manner.conflict == "already-there" or (self._manner.conflict == "ask" and self._is_there(part.delivery))
        if there:
            return Settled(state="already_there", peer_status=str(reply.status))
        comment = f"{self._client.url}: conflict, and the instance is not there."
        return Settled(state="rejected", peer_status=str(reply.status), comment=comment, peer_comment=printable(reply.body, 200))

    def _is_there(self, delivery: Delivery) -> bool:
        """Ask by QIDO-RS (PS3.18 10.6). Raises `Outage` if there is no answer."""
        path = f"/studies/{delivery.study_instance_uid}/series/{delivery.series_instance_uid}/instances"
        try:
            reply = self._client.ask("GET", f"{path}?SOPInstanceUID={delivery.sop_instance_uid}", {"Accept": "application/dicom+json"})
        except Lost as lost:
            raise Outage(lost.sentence, fix=lost.fix) from None
        return reply.status == 200 and delivery.sop_instance_uid.encode() in reply.body

    def _refused(self, reply: Reply) -> Settled | HilumError:
        status, said = str(reply.status), printable(reply.body, 200)
        words = self._manner.meanings.profile.words("http", reply.status)
        meaning = self._meaning(reply)
        if meaning == "permanent":
            return Settled(state="rejected", peer_status=status, comment=f"{self._client.url}: {words}.", peer_comment=said)
        sentence = f"{self._client.url} answered {status} ({words})."
        if meaning == "person":
            return Park(sentence, fix="Put that right there or here, then: hilum deliver retry.", peer_status=status, peer_comment=said)
        return Later(sentence, fix="The service's own log says why.", peer_status=status, peer_comment=said)

    def _meaning(self, reply: Reply) -> HttpOutcome:
        return self._manner.meanings.profile.http(reply.status)

    def _away(self, reply: Reply) -> Outage:
        """What the answer says of the service as a whole; it is left alone for as long as it asks for."""
        status = reply.status
        if "retry-after" not in reply.headers and status not in (429, 503):
            words = self._manner.meanings.profile.words("http", status)
            return Outage(f"{self._client.url} answered {status} ({words}).", fix=FIXES.get(status, "The service's own log says why."))
        wait_s = retry_after_s(reply.headers.get("retry-after", ""))
        self._not_before = self._now() + wait_s
        self._told = f"{self._client.url} answered {status}: it takes nothing for {wait_s:.0f} s."
        return Outage(self._told, fix="Hilum waits as long as the service asks for.")


def _headers(sizes_bytes: Sequence[int]) -> dict[str, str]:
    return {"Content-Type": CONTENT_TYPE, "Content-Length": str(length_of(sizes_bytes)), "Accept": "application/dicom+json"}


def _not_rewritten(delivery: Delivery, error: CannotRecode, why: str) -> Settled | HilumError:
    try:
        return not_rewritten(delivery, error, why)
    except Later as later:
        return later
