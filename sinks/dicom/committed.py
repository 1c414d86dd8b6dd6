"""Ask a peer anew to commit what it should have: what it does not commit for want of the object is missing there (PS3.4 J)."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import UTC, datetime

from hilum.association import AssociationLost
from hilum.commitment_scu import Asking, NotOffered
from hilum.dicom.commitment import FailureReason, Reference, is_taken, reason_text
from hilum.errors import TryAgain
from hilum.peer import NoAssociation, Peer
from hilum.sink import Expected
from hilum.transactions import Transaction, Transactions, new_uid

from .promise import Terms, name_of

#: Instances in one request.
AT_ONCE = 500
#: A person waits, so that no report is waited for longer, however patient deliveries are.
LONGEST_S = 300.0
_LOOK_S = 0.1
#: Reasons that say that the peer has no such object; any other says nothing of that (PS3.3 C.14.1.1).
_NOT_THERE = (FailureReason.NO_SUCH_INSTANCE, FailureReason.CLASS_INSTANCE_CONFLICT, FailureReason.CLASS_NOT_SUPPORTED)


def committed(
    peer: Peer, transactions: Transactions, terms: Terms, expected: Collection[Expected], wait: Callable[[float], None] = time.sleep
) -> frozenset[str]:
    """Those of these instances that the peer commits, by SOP instance UID.

    Raises `TryAgain` if it is away, offers no storage commitment, does not report in time, or cannot tell.
    """
    references = list(dict.fromkeys(Reference(each.sop_class_uid, each.sop_instance_uid) for each in expected))
    found: set[str] = set()
    for at in range(0, len(references), AT_ONCE):
        found |= _asked(peer, transactions, terms, references[at : at + AT_ONCE], wait)
    return frozenset(found)


def _asked(
    peer: Peer, transactions: Transactions, terms: Terms, references: Sequence[Reference], wait: Callable[[float], None]
) -> frozenset[str]:
    uid = new_uid()
    transaction = Transaction(
        transaction_uid=uid,
        destination="",
        asked_at=datetime.now(UTC),
        deliveries={f"verify/{each.sop_instance_uid}": each.sop_instance_uid for each in references},  # no delivery's id
        peer=name_of(peer),
    )
    try:
        transactions.keep(transaction)
    except OSError as error:
        raise TryAgain(
            f"A request for storage commitment cannot be kept ({error.strerror}).", fix="Make room on the spool's disk."
        ) from None
    try:
        try:
            asking = Asking(peer)
        except (NoAssociation, NotOffered) as error:
            raise TryAgain(error.sentence, fix=error.fix) from None
        try:
            _ask(asking, transactions, transaction, references, terms.same_association_s)
        finally:
            asking.release()
        return _reported(peer, transactions, uid, min(LONGEST_S, terms.within_s), wait)
    finally:
        transactions.forget(uid)


def _ask(asking: Asking, transactions: Transactions, transaction: Transaction, references: Sequence[Reference], same_s: float) -> None:
    try:
        answer = asking.ask(transaction.transaction_uid, tuple(references))
    except AssociationLost as lost:
        raise TryAgain(lost.sentence, fix=lost.fix) from None
    if not is_taken(answer.status):
        sentence = f"{asking.peer.aet} answered 0x{answer.status:04X} to the request for storage commitment."
        raise TryAgain(sentence, fix="The peer's own log says why.")
    if same_s and (report := asking.report(same_s)) is not None:
        with suppress(OSError):  # then it is as if the peer had not reported
            transactions.report(report)


def _reported(peer: Peer, transactions: Transactions, uid: str, within_s: float, wait: Callable[[float], None]) -> frozenset[str]:
    waited = 0.0
    while (found := transactions.find(uid)) is not None and found.reported_at is None:
        if waited >= within_s:
            fix = "It reports to Hilum's receiver on this spool: check that it runs, and that the peer knows its title, address and port."
            raise TryAgain(f"{peer.aet} did not report within {within_s:g} s what it commits.", fix=fix)
        wait(_LOOK_S)
        waited += _LOOK_S
    if found is None:
        raise TryAgain("The request for storage commitment is gone from the spool.", fix="Ask again.")
    unsaid = [each for each in found.deliveries.values() if each not in found.committed and found.failed.get(each, 0) not in _NOT_THERE]
    if unsaid:
        words = reason_text(found.failed.get(unsaid[0], 0))
        raise TryAgain(f"{peer.aet} does not say of {len(unsaid):,} objects whether it has them: {words}.", fix="Ask again later.")
    return found.committed
