"""A session of a DICOM destination: one association at a time, with the contexts that its objects need."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from msgspec import Struct

from hilum.association import REFUSALS, Answer, Association, AssociationLost
from hilum.dicom.recode import CannotRecode
from hilum.dicom.transcode import evened, targets_for, transcoded
from hilum.outcomes import Meanings
from hilum.part10 import Part10
from hilum.peer import NoAssociation, Peer
from hilum.sink import Delivery, Later, Outage, Settled
from hilum.upper_layer import MAX_CONTEXTS, Context

from .promise import Promises


class Manner(Struct, frozen=True, kw_only=True):
    """How objects go out."""

    by_study: bool
    idle_s: float
    transcode: bool
    fix_odd_lengths: bool
    meanings: Meanings


class Associations:
    """One association at a time, opened for what is to be sent and kept for as long as such work comes."""

    def __init__(self, peer: Peer, manner: Manner, promises: Promises | None = None) -> None:
        """With `promises`, what is stored counts as delivered once the peer has committed it."""
        self._promises = promises
        self._peer = peer
        self._manner = manner
        self._association: Association | None = None
        self._study = ""
        self._coming: list[Delivery] = []

    def begin(self, deliveries: Sequence[Delivery]) -> None:
        """See `Session.begin`."""
        self._ask()
        self._coming = list(deliveries)
        study = deliveries[0].study_instance_uid if deliveries else ""
        if self._manner.by_study and study != self._study:
            self._release()
        self._study = study

    def deliver(self, delivery: Delivery, part10: Part10) -> Settled:
        """See `Session.deliver`."""
        promises = self._promises
        if promises is None:
            return self._send(delivery, part10)
        if (outcome := promises.outcome(delivery)) is not None:
            return outcome
        outcome = self._send(delivery, part10)
        if outcome.state == "rejected":
            return outcome
        raise promises.stored(delivery, ask=not self._coming or delivery.delivery_id == self._coming[-1].delivery_id)

    def _ask(self) -> None:
        if self._promises is not None:
            self._promises.ask_if_any()

    def _send(self, delivery: Delivery, part10: Part10) -> Settled:
        """Store one object; once more on a new association if the peer has ended the open one."""
        while True:
            association = self._association_for(delivery)
            first = association.answers == 0
            try:
                return self._store(association, delivery, part10)
            except AssociationLost as lost:
                self._association = None
                if first:  # else the peer may have ended it between two objects: once more, on a new one
                    raise Later(lost.sentence, fix=lost.fix) from None

    def rest(self) -> None:
        """See `Session.rest`."""
        self._ask()
        if self._association and time.monotonic() - self._association.used_at >= self._manner.idle_s:
            self._release()

    def close(self) -> None:
        """See `Session.close`."""
        self._ask()
        self._release()

    def _release(self) -> None:
        if self._association:
            self._association.release()
            self._association = None

    def _association_for(self, delivery: Delivery) -> Association:
        """The open association, or a new one if it is gone or was not asked for what this object needs."""
        needed = contexts_for(delivery, transcode=self._manner.transcode)
        known: dict[Context, None] = {}
        if self._association:
            known = dict.fromkeys((*self._association.accepted, *self._association.refused))
            if all(context in known for context in needed) and self._association.is_open():
                return self._association
            self._release()
        ids = [each.delivery_id for each in self._coming]
        rest = self._coming[ids.index(delivery.delivery_id) :] if delivery.delivery_id in ids else []
        wanted = needed_by([delivery, *rest], transcode=self._manner.transcode) | known
        try:
            self._association = Association(self._peer, list(wanted)[:MAX_CONTEXTS])
        except NoAssociation as error:
            raise Outage(error.sentence, fix=error.fix) from None
        return self._association

    def _store(self, association: Association, delivery: Delivery, part10: Part10) -> Settled:
        asked, *others = contexts_for(delivery, transcode=self._manner.transcode)
        by_syntax = {context.transfer_syntax: context for context in others}
        preferred = [by_syntax[uid] for uid in self._manner.meanings.profile.in_order(list(by_syntax))]
        chosen = next((context for context in (asked, *preferred) if context in association.accepted), None)
        if chosen is None:
            return self._refused(association.refused[asked], asked)
        if chosen == asked and not self._manner.fix_odd_lengths:
            return self._settled(association.c_store(chosen, delivery.sop_instance_uid, part10.data_set))
        try:
            with part10.mapped() as (whole, at):
                if chosen == asked:
                    pieces = evened(whole, at, asked.transfer_syntax) or part10.data_set
                else:
                    pieces = transcoded(whole, at, asked.transfer_syntax, chosen.transfer_syntax)
                return self._settled(association.c_store(chosen, delivery.sop_instance_uid, pieces))
        except CannotRecode as error:
            if chosen == asked:
                return Settled(state="rejected", comment=f"Odd lengths are to be padded, and the object cannot be rewritten: {error}.")
            sentence = f"{self._peer.aet} takes no transfer syntax {asked.transfer_syntax}, and the object cannot be rewritten: {error}."
            return Settled(state="rejected", comment=sentence)

    def _settled(self, answer: Answer) -> Settled:
        return self._manner.meanings.of_status(self._peer.aet, answer.status, answer.comment)

    def _refused(self, result: int, context: Context) -> Settled:
        reason = REFUSALS.get(result, f"result {result}")
        what = f"SOP class {context.abstract_syntax} in transfer syntax {context.transfer_syntax}"
        sentence = f"{self._peer.aet} does not take {what}: {reason}."
        if result in (3, 4):
            return Settled(state="rejected", comment=sentence)
        raise Later(sentence, fix="The peer's own log says why.")


def contexts_for(delivery: Delivery, *, transcode: bool = True) -> list[Context]:
    """The presentation contexts that an object can be sent in: first as it is, then as it can be written without loss (PS3.5 10.1)."""
    return contexts_of(delivery.sop_class_uid, delivery.transfer_syntax_uid, transcode=transcode)


def contexts_of(sop_class_uid: str, own: str, *, transcode: bool = True) -> list[Context]:
    """The same for any object of this SOP class in the transfer syntax `own`."""
    syntaxes = (own, *(targets_for(own) if transcode else ()))
    return [Context(abstract_syntax=sop_class_uid, transfer_syntax=each) for each in syntaxes]


def needed_by(deliveries: Iterable[Delivery], *, transcode: bool) -> dict[Context, None]:
    """The contexts of all of them, each once, in their order; those of the first one come first."""
    kinds = dict.fromkeys((each.sop_class_uid, each.transfer_syntax_uid) for each in deliveries)
    return dict.fromkeys(context for kind in kinds for context in contexts_of(*kind, transcode=transcode))
