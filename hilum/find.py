"""Ask a DICOM node which instances it has, by C-FIND in the Study Root model (PS3.4 C.4.1, C.6.2.1)."""

from __future__ import annotations

from collections.abc import Collection

from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind  # type: ignore[attr-defined]  # made when it is imported

from hilum.errors import TryAgain
from hilum.peer import Peer, addresses, connect, secure

_PENDING = (0xFF00, 0xFF01)


def instances_of(peer: Peer, study_instance_uid: str, series_instance_uids: Collection[str]) -> frozenset[str]:
    """The SOPInstanceUIDs that `peer` has of these series of a study: one C-FIND at the level IMAGE for each series.

    Raises `TryAgain` that says what the peer refuses or does not answer.
    """
    ae = AE(peer.calling_aet)
    ae.connection_timeout, ae.acse_timeout = peer.connect_timeout_s, peer.association_timeout_s
    ae.dimse_timeout = ae.network_timeout = peer.response_timeout_s
    ae.add_requested_context(StudyRootQueryRetrieveInformationModelFind)
    secure(peer, connect(peer, addresses(peer))).close()  # says in words why it cannot be reached
    tls = (peer.tls.context(), peer.tls.server_name or peer.host) if peer.tls else None
    association = ae.associate(peer.host, peer.port, ae_title=peer.aet, tls_args=tls)
    if not association.is_established:
        raise TryAgain(
            f"{peer.aet} at {peer.address} does not admit {peer.calling_aet} for C-FIND.",
            fix=f"Ask its administrator to let {peer.calling_aet} query, or set where it is queried: `query_aet`, `query_port`.",
        )
    try:
        if not any(context.abstract_syntax == StudyRootQueryRetrieveInformationModelFind for context in association.accepted_contexts):
            fix = "Set `query_aet` or `query_port`, if it is queried elsewhere."
            raise TryAgain(f"{peer.aet} takes no C-FIND in the Study Root model.", fix=fix)
        found: set[str] = set()
        for series in series_instance_uids:
            found |= _instances(association, peer, study_instance_uid, series)
        return frozenset(found)
    finally:
        association.release()


def _instances(association: Association, peer: Peer, study_instance_uid: str, series_instance_uid: str) -> set[str]:
    asked = Dataset()
    asked.QueryRetrieveLevel = "IMAGE"
    asked.StudyInstanceUID = study_instance_uid
    asked.SeriesInstanceUID = series_instance_uid
    asked.SOPInstanceUID = ""
    found = set()
    for answer, identifier in association.send_c_find(asked, StudyRootQueryRetrieveInformationModelFind):
        if "Status" not in answer:
            raise TryAgain(
                f"{peer.aet} did not answer a C-FIND within {peer.response_timeout_s:g} s.", fix="Ask again, or look at its log."
            )
        if answer.Status in _PENDING:
            # Some peers answer with more than was asked for; what is of another series was not.
            if identifier is not None and str(identifier.get("SeriesInstanceUID", series_instance_uid)) == series_instance_uid:
                found.add(str(identifier.get("SOPInstanceUID", "")))
        elif answer.Status:
            raise TryAgain(f"{peer.aet} answered 0x{answer.Status:04X} to a C-FIND (PS3.4 C.4.1.1.4).", fix="The peer's own log says why.")
    return found - {""}
