"""Delivered means committed: after the C-STORE the peer is asked to commit, and its report settles the delivery (PS3.4 J)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from msgspec import Struct

from hilum import telemetry
from hilum.association import AssociationLost
from hilum.commitment_scu import Asking, NotOffered
from hilum.dicom.commitment import FailureReason, Reference, is_taken, reason_text
from hilum.errors import HilumError, TryAgain
from hilum.peer import NoAssociation, Peer
from hilum.sink import Delivery, Later, Outage, Settled, Waits
from hilum.transactions import Promise, Transaction, Transactions, new_uid

log = telemetry.logger("deliver")

#: Between looks for a report: twice as long each time.
FIRST_LOOK_S, LONGEST_LOOK_S = 1.0, 60.0
#: Reasons with which sending the object again changes nothing (PS3.3 C.14.1.1).
_LASTING = (FailureReason.CLASS_NOT_SUPPORTED, FailureReason.CLASS_INSTANCE_CONFLICT)


class Terms(Struct, frozen=True, kw_only=True):
    """How a peer commits."""

    #: So long it may take to report before it is asked anew.
    within_s: float
    #: So long its report is waited for on the association of the request; 0: it reports on one of its own.
    same_association_s: float


def name_of(peer: Peer) -> str:
    """Which peer it is, among those that one delivery may go to."""
    return f"{peer.aet}@{peer.address}"


class Promises:
    """What one session has asked its peer to commit."""

    def __init__(
        self, peer: Peer, transactions: Transactions, terms: Terms, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._peer = peer
        self._transactions = transactions
        self._terms = terms
        self._now = now
        #: Stored, and not asked for yet: with the SOP instance UID under which the peer has it.
        self._stored: dict[str, tuple[Delivery, str]] = {}

    def outcome(self, delivery: Delivery) -> Settled | None:
        """How a delivery that was stored before stands: settled, or None if it is to be stored.

        Raises `Waits` while the peer has not reported, and `Later` if it reports a failure that may pass, or nothing in time.
        """
        id_, peer = delivery.delivery_id, self._peer
        if id_ in self._stored:
            self.ask()
        promise = self._promise(id_)
        if promise is None:
            return None
        waited = self._now() - promise.asked_at
        if promise.state == "asked" and waited < timedelta(seconds=self._terms.within_s):
            raise self._waits(waited.total_seconds())
        with suppress(OSError):  # on a full disk it stays, and says the same again
            self._transactions.done_with(id_, settled=promise.state == "committed")
        if promise.state == "committed":
            other = promise.sop_instance_uid if promise.sop_instance_uid != delivery.sop_instance_uid else ""
            return Settled(state="delivered", peer_status="0x0000", comment="committed", sent_as=other)
        if promise.state == "asked":
            sentence = f"{peer.aet} has the object and did not report its commitment within {self._terms.within_s:g} s."
            raise Later(sentence, fix="Let it know Hilum's AE title and address, so that it can report; its own log says more.")
        code, words = f"0x{promise.reason:04X}", reason_text(promise.reason)
        if promise.reason in _LASTING:
            return Settled(state="rejected", peer_status=code, comment=f"{peer.aet} does not commit the object: {words}.")
        raise Later(f"{peer.aet} does not commit the object: {words}.", fix="Hilum sends it again.", peer_status=code)

    def awaits(self, delivery: Delivery) -> bool:
        """Whether the peer has the object and is to commit it, or has done so, or has said that it does not."""
        return delivery.delivery_id in self._stored or self._promise(delivery.delivery_id) is not None

    def _promise(self, delivery_id: str) -> Promise | None:
        """How it stands with this peer; a request of which nobody knows whether it was taken, since who made it was ended, is none."""
        promise = self._transactions.promise(delivery_id, name_of(self._peer))
        return promise if promise is not None and promise.taken else None

    def stored(self, delivery: Delivery, sop_instance_uid: str, *, ask: bool) -> Waits:
        """The peer has the object, under this UID: it is to be committed together with others, now if `ask`. What is to be raised."""
        self._stored[delivery.delivery_id] = delivery, sop_instance_uid
        if ask:
            self.ask()
        return self._waits(0.0)

    def ask(self) -> None:
        """Ask for all that was stored. Raises `Outage`, or `Later` if the peer does not take the request."""
        if not self._stored:
            return
        stored = list(self._stored.values())
        transaction = Transaction(
            transaction_uid=new_uid(),
            destination=stored[0][0].destination,
            asked_at=self._now(),
            deliveries={each.delivery_id: uid for each, uid in stored},
            peer=name_of(self._peer),
            taken=False,
        )
        try:
            asking = Asking(self._peer)
        except (NoAssociation, NotOffered) as error:
            raise Outage(error.sentence, fix=error.fix) from None
        try:
            self._ask(asking, transaction, stored)
        finally:
            asking.release()
        self._stored.clear()

    def ask_if_any(self) -> None:
        """The same when nobody waits for an answer: what could not be asked for is stored again later."""
        with suppress(OSError):
            self._transactions.sweep()
        try:
            self.ask()
        except HilumError as error:
            log.warning("commitment_not_asked", destination=next(iter(self._stored.values()))[0].destination, says=str(error))
            self._stored.clear()

    def _ask(self, asking: Asking, transaction: Transaction, stored: list[tuple[Delivery, str]]) -> None:
        try:
            self._transactions.keep(transaction)
        except OSError as error:
            fix = "Make room on the spool's disk."
            raise TryAgain(f"A request for storage commitment cannot be kept ({error.strerror}).", fix=fix) from None
        references = tuple(dict.fromkeys(Reference(each.sop_class_uid, uid) for each, uid in stored))
        try:
            answer = asking.ask(transaction.transaction_uid, references)
        except AssociationLost as lost:
            self._transactions.forget(transaction.transaction_uid)
            raise Later(lost.sentence, fix=lost.fix) from None
        if not is_taken(answer.status):
            self._transactions.forget(transaction.transaction_uid)
            code = f"0x{answer.status:04X}"
            sentence = f"{self._peer.aet} answered {code} to the request for storage commitment."
            raise Later(sentence, fix="The peer's own log says why.", peer_status=code, peer_comment=answer.comment)
        with suppress(OSError):  # then it is asked for again, should this process be ended
            self._transactions.taken(transaction.transaction_uid)
        if self._terms.same_association_s and (report := asking.report(self._terms.same_association_s)) is not None:
            with suppress(OSError):  # then it is as if the peer had not reported
                self._transactions.report(report)

    def _waits(self, waited_s: float) -> Waits:
        after_s = min(LONGEST_LOOK_S, max(FIRST_LOOK_S, waited_s))
        return Waits(f"{self._peer.aet} has the object and has yet to commit it.", after_s=after_s)
