"""Associations in which Hilum asks another node for something, by pynetdicom: any service but storage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from pynetdicom import AE
from pynetdicom.association import Association

from hilum.errors import TryAgain
from hilum.peer import Peer, addresses, connect, secure


def ready(association: Association) -> None:
    """Wait until one more request can be sent on an association of pynetdicom.

    Its `send_*` methods pause a thread that reads what comes. Where that thread has not yet woken from the pause of the request before,
    the next one is sent at once, and the thread may then take its answer and drop it as unexpected (pynetdicom #875).
    """
    while association.is_established and association._is_paused:
        time.sleep(0.0002)


@contextmanager
def associated(peer: Peer, sop_class: str, what: str, *, admit: str, take: str) -> Iterator[Association]:
    """An association for one service, called `what` in words.

    Raises `TryAgain` if there is none to be had, with the fix `admit` if the peer rejects it, and `take` if it does not take the service.
    """
    ae = AE(peer.calling_aet)
    ae.connection_timeout, ae.acse_timeout = peer.connect_timeout_s, peer.association_timeout_s
    ae.dimse_timeout = ae.network_timeout = peer.response_timeout_s
    ae.add_requested_context(sop_class)
    secure(peer, connect(peer, addresses(peer))).close()  # says in words why it cannot be reached
    tls = (peer.tls.context(), peer.tls.server_name or peer.host) if peer.tls else None
    association = ae.associate(peer.host, peer.port, ae_title=peer.aet, tls_args=tls)
    if association.is_rejected:
        raise TryAgain(f"{peer.aet} at {peer.address} does not admit {peer.calling_aet} for {what}.", fix=admit)
    try:
        # pynetdicom itself ends an association on which nothing is agreed to.
        if not any(context.abstract_syntax == sop_class for context in association.accepted_contexts):
            raise TryAgain(f"{peer.aet} takes no {what}.", fix=take)
        if not association.is_established:
            raise TryAgain(f"{peer.aet} at {peer.address} ended the association.", fix="Look at its log.")
        ready(association)
        yield association
    finally:
        if association.is_established:
            association.release()
