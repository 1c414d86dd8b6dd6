"""A session of a DICOM destination: one association at a time, with the contexts that its objects need."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from hilum.association import REFUSALS, Answer, Association, AssociationLost
from hilum.dicom.lossy import Lossy, suits
from hilum.dicom.recode import CannotRecode
from hilum.dicom.transcode import evened, targets_for
from hilum.outcomes import Meanings
from hilum.part10 import Part10
from hilum.peer import NoAssociation, Peer
from hilum.rewriting import in_syntax, may_be_lossy, not_rewritten, sent_as, with_loss
from hilum.sink import Delivery, Later, Outage, Park, Settled
from hilum.upper_layer import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, MAX_CONTEXTS, Context

from .promise import Promises
from .usual import USUAL_SOP_CLASSES

#: A peer that took none of an association's contexts, but some others, is not asked for these again for so long.
_TAKES_SOMETHING_S = 60.0


class Manner(Struct, frozen=True, kw_only=True):
    """How objects go out."""

    by_study: bool
    idle_s: float
    transcode: bool
    fix_odd_lengths: bool
    meanings: Meanings
    #: What becomes of an object that the peer takes in no context, while it takes others.
    refused_contexts: Literal["person", "permanent", "retry"] = "person"
    #: Compress images with loss, so.
    lossy: Lossy | None = None
    #: Call as the object's sender called itself, and by the title that it called.
    calling_of_sender: bool = False
    called_of_sender: bool = False


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
        #: Until then it is believed that the peer takes something, as it did when it was asked.
        self._takes_something_until = 0.0
        #: The peer has ended an association while a request was under way.
        self._wary = False

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
        uid = outcome.sent_as or delivery.sop_instance_uid
        raise promises.stored(delivery, uid, ask=not self._coming or delivery.delivery_id == self._coming[-1].delivery_id)

    def awaits(self, delivery: Delivery) -> bool:
        """See `Session.awaits`: for storage commitment."""
        return self._promises is not None and self._promises.awaits(delivery)

    def _ask(self) -> None:
        if self._promises is not None:
            self._promises.ask_if_any()

    def _send(self, delivery: Delivery, part10: Part10) -> Settled:
        """Store one object. If the association ends once the request has begun, nobody knows whether the peer has it: that is an attempt.

        So is a request on an association that the peer was about to end: from then on it is looked at more closely before each one.
        """
        association = self._association_for(delivery)
        try:
            return self._store(association, delivery, part10)
        except AssociationLost as lost:
            self._association, self._wary = None, True
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
        needed = contexts_for(delivery, transcode=self._manner.transcode, lossy=self._manner.lossy)
        known: dict[Context, None] = {}
        peer = self._peer_for(delivery)
        if self._association and self._association.peer != peer:  # one association has one pair of titles
            self._release()
        if self._association:
            known = dict.fromkeys((*self._association.accepted, *self._association.refused))
            if all(context in known for context in needed) and self._association.is_open(wary=self._wary):
                return self._association
            self._release()
        ids = [each.delivery_id for each in self._coming]
        coming = self._coming[ids.index(delivery.delivery_id) :] if delivery.delivery_id in ids else []
        rest = [each for each in coming if self._peer_for(each) == peer]
        wanted = needed_by([delivery, *rest], transcode=self._manner.transcode, lossy=self._manner.lossy) | known
        try:
            self._association = Association(peer, list(wanted)[:MAX_CONTEXTS])
        except NoAssociation as error:
            raise Outage(error.sentence, fix=error.fix) from None
        return self._association

    def _peer_for(self, delivery: Delivery) -> Peer:
        """The peer, with the titles that this object is to be sent with."""
        manner = self._manner
        if not (manner.calling_of_sender or manner.called_of_sender):
            return self._peer
        calling = delivery.calling_aet if manner.calling_of_sender else ""
        called = delivery.called_aet if manner.called_of_sender else ""
        return replace(self._peer, calling_aet=calling or self._peer.calling_aet, aet=called or self._peer.aet)

    def _store(self, association: Association, delivery: Delivery, part10: Part10) -> Settled:
        if self._manner.lossy is not None and may_be_lossy(delivery, self._manner.lossy):
            settled = self._store_with_loss(association, delivery, part10, self._manner.lossy)
            if settled is not None:
                return settled
        asked, *others = contexts_for(delivery, transcode=self._manner.transcode)
        by_syntax = {context.transfer_syntax: context for context in others}
        preferred = [by_syntax[uid] for uid in self._manner.meanings.profile.in_order(list(by_syntax))]
        chosen = next((context for context in (asked, *preferred) if context in association.accepted), None)
        if chosen is None:
            return self._refused(association, [asked, *preferred])
        if chosen == asked:
            return self._store_as_it_is(association, delivery, part10, asked)
        try:
            with in_syntax(delivery, part10, chosen.transfer_syntax) as rewritten:
                return self._settled(association.c_store(chosen, delivery.sop_instance_uid, rewritten.data_set))
        except CannotRecode as error:
            return not_rewritten(delivery, error, f"{self._peer.aet} takes no transfer syntax {asked.transfer_syntax}")

    def _store_as_it_is(self, association: Association, delivery: Delivery, part10: Part10, context: Context) -> Settled:
        if not self._manner.fix_odd_lengths:
            return self._settled(association.c_store(context, delivery.sop_instance_uid, part10.data_set))
        try:
            with part10.mapped() as (whole, at):
                pieces = evened(whole, at, context.transfer_syntax) or part10.data_set
                return self._settled(association.c_store(context, delivery.sop_instance_uid, pieces))
        except CannotRecode as error:
            return not_rewritten(delivery, error, "Odd lengths are to be padded")

    def _store_with_loss(self, association: Association, delivery: Delivery, part10: Part10, lossy: Lossy) -> Settled | None:
        """Store the image that is made of the object; None if it goes as any other."""
        context = Context(abstract_syntax=delivery.sop_class_uid, transfer_syntax=lossy.syntax)
        try:
            with with_loss(delivery, part10, lossy) as made:
                if made is None:
                    return None
                if context not in association.accepted:
                    return self._refused(association, [context])
                return sent_as(self._settled(association.c_store(context, made.sop_instance_uid, made.data_set)), made, delivery)
        except CannotRecode as error:
            return not_rewritten(delivery, error, "Images are to be compressed with loss")

    def _settled(self, answer: Answer) -> Settled:
        return self._manner.meanings.of_status(self._peer.aet, answer.status, answer.comment)

    def _refused(self, association: Association, proposed: Sequence[Context]) -> Settled:
        """What becomes of an object of which the peer takes none of the contexts. Raises `Outage` if it takes nothing at all."""
        if not association.accepted:
            self._find_out_whether_it_takes_anything(association.peer, proposed[0])
        syntaxes: dict[int, list[str]] = {}
        for context in proposed:
            syntaxes.setdefault(association.refused[context], []).append(context.transfer_syntax)
        why = "; ".join(
            f"in transfer syntax {', '.join(each)}: {REFUSALS.get(result, f'result {result}')}" for result, each in syntaxes.items()
        )
        sentence = f"{self._peer.aet} does not take SOP class {proposed[0].abstract_syntax} {why}."
        outcome = self._manner.refused_contexts
        if outcome == "retry" or not syntaxes.keys() <= {3, 4}:  # 1 and 2 say nothing about the class
            raise Later(sentence, fix="The peer's own log says why.")
        if outcome == "person":
            raise Park(sentence, fix="Let the peer take it, or send it elsewhere; then: hilum deliver retry.")
        return Settled(state="rejected", comment=sentence)

    def _find_out_whether_it_takes_anything(self, peer: Peer, refused: Context) -> None:
        """Raise `Outage` if the peer takes none of the usual SOP classes either: it has lost its licence or its table, say."""
        if time.monotonic() < self._takes_something_until:
            return
        self._release()  # it may admit one association only
        syntaxes = (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN)
        usual = [Context(abstract_syntax=str(each), transfer_syntax=syntax) for each in USUAL_SOP_CLASSES for syntax in syntaxes]
        try:
            found = Association(peer, usual)
        except NoAssociation as error:
            raise Outage(error.sentence, fix=error.fix) from None
        found.release()
        if not found.accepted:
            sentence = (
                f"{peer.aet} takes the association and no presentation context: not SOP class {refused.abstract_syntax}, and none of"
                f" {len(USUAL_SOP_CLASSES)} usual ones."
            )
            raise Outage(sentence, fix=f"Ask its administrator to let {peer.calling_aet} store images; its licence may have ended.")
        self._takes_something_until = time.monotonic() + _TAKES_SOMETHING_S


def contexts_for(delivery: Delivery, *, transcode: bool = True, lossy: Lossy | None = None) -> list[Context]:
    """The presentation contexts that an object can be sent in: first as it is, then as it can be written without loss (PS3.5 10.1).

    Then, with `lossy`, that of the image which is made of it.
    """
    return contexts_of(delivery.sop_class_uid, delivery.transfer_syntax_uid, transcode=transcode, lossy=lossy)


def contexts_of(sop_class_uid: str, own: str, *, transcode: bool = True, lossy: Lossy | None = None) -> list[Context]:
    """The same for any object of this SOP class in the transfer syntax `own`."""
    syntaxes = [own, *(targets_for(own) if transcode else ())]
    if lossy is not None and suits(sop_class_uid, own):
        syntaxes.append(lossy.syntax)
    return [Context(abstract_syntax=sop_class_uid, transfer_syntax=each) for each in syntaxes]


def needed_by(deliveries: Iterable[Delivery], *, transcode: bool, lossy: Lossy | None = None) -> dict[Context, None]:
    """The contexts of all of them, each once, in their order; those of the first one come first."""
    kinds = dict.fromkeys((each.sop_class_uid, each.transfer_syntax_uid) for each in deliveries)
    return dict.fromkeys(context for kind in kinds for context in contexts_of(*kind, transcode=transcode, lossy=lossy))
