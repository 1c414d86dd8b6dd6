"""Tell SCUs what was decided, on associations that Hilum asks for in the role of the SCP (PS3.4 J.3.3, PS3.7 D.3.3.4)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta

from hilum import telemetry
from hilum.association import REFUSALS, Association, AssociationLost
from hilum.client_tls import ClientTls
from hilum.commitments import Commitments, Request
from hilum.dicom.commitment import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE, is_taken, write_report
from hilum.errors import TryAgain
from hilum.peer import Peer
from hilum.sections import Called
from hilum.settings import Node
from hilum.upper_layer import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, Context

log = telemetry.logger("commitment")

_CONTEXTS = [
    Context(abstract_syntax=STORAGE_COMMITMENT, transfer_syntax=syntax) for syntax in (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
]
#: SCUs that are told at the same time, and reports on one association.
MOST_AT_ONCE = 4
MOST_IN_ONE = 100
#: Between the attempts to tell one SCU: twice as long each time.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 10.0, 3600.0


class Reporter:
    """Tells each SCU in a thread of its own, so that none delays another; `nodes` are the peers of the settings."""

    def __init__(self, commitments: Commitments, nodes: dict[str, Node], now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._commitments = commitments
        self._nodes = nodes
        self._now = now
        self._busy: set[str] = set()
        self._lock = threading.Lock()

    def node_of(self, calling_aet: str) -> Node | None:
        """Where the SCU listens; None if the settings do not say."""
        return self._nodes.get(calling_aet)

    def tell(self, due: Iterable[Request]) -> None:
        """Begin to report what is due, of each SCU oldest first, and return. Whoever is being told now is left for later."""
        by_scu: dict[tuple[str, str], list[str]] = {}
        for request in due:
            by_scu.setdefault((request.calling_aet, request.called_aet), []).append(request.id)
        for (calling_aet, called_aet), ids in by_scu.items():
            node = self.node_of(calling_aet)
            with self._lock:
                if node is None or calling_aet in self._busy or len(self._busy) >= MOST_AT_ONCE:
                    continue
                self._busy.add(calling_aet)
            peer = Peer(
                host=node.host,
                port=node.port,
                aet=calling_aet,
                calling_aet=called_aet,
                connect_timeout_s=5.0,
                response_timeout_s=30.0,
                tls=tls_of(f"peers.{calling_aet}", node),
            )
            threading.Thread(
                target=self._tell, args=(peer, ids[:MOST_IN_ONE]), name=f"commitment report {calling_aet}", daemon=True
            ).start()

    def _tell(self, peer: Peer, ids: Sequence[str]) -> None:
        left = list(ids)
        try:
            association, context = _associate(peer)
            try:
                while left:
                    self._report(association, context, left[0])
                    left.pop(0)
            finally:
                association.release()
        except AssociationLost as error:  # it may be for this one that the peer has ended it: the next ones have their turn
            self._failed(left[:1], str(error))
        except TryAgain as error:
            self._failed(left, str(error))
        except Exception as error:  # of our own, or of the disk; the requests stay as they are
            log.error("commitment_report_failed", calling_aet=peer.aet, error=telemetry.described(error))
            self._failed(left[:1], f"The report failed ({type(error).__name__}).")
        finally:
            with self._lock:
                self._busy.discard(peer.aet)

    def _report(self, association: Association, context: Context, id_: str) -> None:
        commitment = self._commitments.get(id_)
        if commitment is None or commitment.state != "decided":
            return
        event_type, data_set = write_report(commitment.transaction_uid, commitment.committed, commitment.failures, context.transfer_syntax)
        answer = association.n_event_report(context, STORAGE_COMMITMENT_INSTANCE, event_type, data_set)
        told = {"uid": commitment.transaction_uid, "calling_aet": commitment.calling_aet, "status": f"0x{answer.status:04X}"}
        if not is_taken(answer.status):
            log.warning("commitment_reported", **told)
            self._failed([id_], f"{association.peer.address} answered the report with 0x{answer.status:04X}.")
            return
        log.info("commitment_reported", **told)
        telemetry.COMMITMENTS_ENDED.labels(state="reported").inc()
        says = f"reported to {association.peer.address}"
        self._commitments.finish(id_, state="reported", attempts=commitment.attempts + 1, ended_at=self._now(), says=says)

    def _failed(self, ids: Sequence[str], says: str) -> None:
        try:
            for id_ in ids:
                commitment = self._commitments.get(id_)
                if commitment is not None and commitment.state == "decided":
                    telemetry.COMMITMENT_REPORTS_FAILED.inc()
                    self._commitments.change(
                        id_, attempts=commitment.attempts + 1, not_before=self._now() + pause(commitment.attempts), says=says
                    )
        except OSError as error:
            log.error("commitment_not_kept", says=error.strerror or "")


def tls_of(section: str, node: Called) -> ClientTls | None:
    """How TLS is spoken to the peer of this section of the settings; None if it is not."""
    if not node.tls:
        return None
    return ClientTls(
        section=section,
        ca=node.tls_ca,
        check_name=node.tls_check_name,
        server_name=node.tls_server_name,
        certificate=node.tls_certificate,
        key=node.tls_key,
    )


def pause(attempts: int) -> timedelta:
    """How long to wait after one more attempt than `attempts` has failed."""
    return timedelta(seconds=min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(attempts, 20)))


def _associate(peer: Peer) -> tuple[Association, Context]:
    """An association and the context for reports. Raises `TryAgain` if there is none to be had."""
    association = Association(peer, _CONTEXTS, scp_of=[STORAGE_COMMITMENT])
    context = next((each for each in _CONTEXTS if each in association.accepted), None)
    # A peer that does not answer to the role takes it, in practice.
    if context is None or not association.may_be_scp.get(STORAGE_COMMITMENT, True):
        association.release()
        why = REFUSALS.get(association.refused[_CONTEXTS[0]], "refused") if context is None else "it refuses Hilum the role of the SCP"
        raise TryAgain(
            f"{peer.address} takes the association, but no report of storage commitment: {why}.",
            fix="Check that the peer's storage commitment is on, and that this is the port of it.",
        )
    return association, context
