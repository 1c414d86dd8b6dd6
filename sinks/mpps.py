"""Say to a RIS what modalities say of the steps that they perform (MPPS, PS3.4 F): N-CREATE and N-SET, each as it came, in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta, Struct
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import ModalityPerformedProcedureStep, Verification  # type: ignore[attr-defined]  # made at import

from hilum.asking import ready
from hilum.client_tls import ClientTls
from hilum.dicom.writing import SPECIFIC_CHARACTER_SET, UNICODE, character_set, encode
from hilum.in_order import InOrder, Outcome, Queued
from hilum.kinds import AeTitle, BareAeTitle, Host, Seconds
from hilum.notices import Composed, Notice, Outgoing, refuse_rules
from hilum.settings import Settings
from hilum.sink import Outage, Park, Session, Settled, Sink, Step, step

#: Statuses that say it was done: success, and warnings (PS3.7 C).
_DONE = frozenset({0x0000, 0x0001, 0x0107, 0x0116})
_DUPLICATE, _PROCESSING_FAILURE, _RESOURCES = 0x0111, 0x0110, 0x0213
#: Error ID of a step that is in its final state (PS3.4 F.7.2.2.4).
_FINAL = 0xA710


class Said(Struct, frozen=True, kw_only=True):
    """One message on its way."""

    sop_instance_uid: str
    create: bool
    attributes: dict[str, Any]


class Mpps(Sink, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An SCP of Modality Performed Procedure Step. No rule sends objects to it."""

    host: Host
    port: Annotated[int, Meta(ge=1, le=65535)]
    #: Its AE title.
    aet: AeTitle
    #: The AE title by which Hilum calls; empty: the modality's own, for those who tell senders by it.
    calling_aet: Annotated[str, Meta(max_length=16)] = ""
    tls: bool = False
    #: PEM file of the authorities that its certificate must come from; empty: the system's.
    tls_ca: str = ""
    #: PEM file of the certificate that Hilum shows, if it asks for one.
    tls_certificate: str = ""
    #: PEM file of its private key; empty: it is in the file of the certificate.
    tls_key: str = ""
    #: The name in its certificate; empty: `host`.
    tls_server_name: str = ""
    #: Whether its certificate must name the host.
    tls_check_name: bool = True
    #: For a connection and for each answer.
    timeout_s: Seconds = 30.0
    #: Calling AE titles of modalities whose steps are passed on; empty: of all.
    modalities: tuple[BareAeTitle, ...] = ()
    #: A message whose processing fails (0110H) is put aside after so long, in seconds; 0: never. Meanwhile it is said again after growing
    #: pauses, and the others wait. One that it has no resources for (0213H) is said again for as long as it takes.
    rejected_for_s: Annotated[float, Meta(ge=0)] = 600.0
    #: Messages go one after the other.
    workers: Annotated[int, Meta(ge=1, le=1)] = 1
    #: Over all processes, too.
    max_associations: Annotated[int, Meta(ge=1, le=1)] = 1

    batch: ClassVar[int] = 16

    @property
    def reads(self) -> bool:
        """See `Sink.reads`: there are no objects."""
        return False

    def fits(self, name: str, settings: Settings) -> None:
        """See `Sink.fits`."""
        refuse_rules(name, settings)

    def wants(self, notice: Notice) -> bool:
        """See `hilum.notices.Notified`."""
        event = notice.step
        if event is None or (self.modalities and event.calling_aet not in self.modalities):
            return False
        return event.said_cut or bool(event.all_said.keys() - {SPECIFIC_CHARACTER_SET})  # else there is nothing to say

    def compose(self, notice: Notice, study: Mapping[str, str]) -> Composed | None:
        """See `hilum.notices.Notified`. None if the event does not have all of the message."""
        del study
        event = notice.step
        if event is None or event.said_cut:
            return None
        said = Said(sop_instance_uid=event.sop_instance_uid, create=event.revision == 1, attributes=event.all_said)
        return Composed(text=f"{event.calling_aet}\n{msgspec.json.encode(said).decode()}")

    def peer(self) -> Peer:
        """The SCP. Raises `Misconfigured` if a file of TLS cannot be used."""
        tls = ClientTls(
            ca=self.tls_ca,
            certificate=self.tls_certificate,
            key=self.tls_key,
            server_name=self.tls_server_name,
            check_name=self.tls_check_name,
        )
        if self.tls:
            tls.context()
        return Peer(self, tls if self.tls else None)

    def open(self, settings: Settings) -> Session:
        """See `Sink.open`."""
        return Steps(self.peer(), Queued(settings.postgres.dsn), self.rejected_for_s)

    def check(self, settings: Settings, *, with_object: bool = False) -> Iterator[Step]:
        """See `Sink.check`: an association for performed steps; nothing is said on it."""
        del settings, with_object
        peer = self.peer()
        try:
            with step("association") as asking:
                peer.connect(self.calling_aet or "HILUM")
                asking.says = f"{self.aet} takes performed procedure steps"
            yield asking.done
        finally:
            peer.close()


class Peer:
    """An association with the SCP, kept while it is used. For one thread."""

    def __init__(self, sink: Mpps, tls: ClientTls | None) -> None:
        self._sink, self._tls = sink, tls
        self._association: Association | None = None
        self._calling = ""

    @property
    def where(self) -> str:
        """The SCP, for people."""
        return f"{self._sink.aet} at {self._sink.host}:{self._sink.port}"

    def calls_as(self, modality: str) -> str:
        """The title by which Hilum calls for a modality."""
        return self._sink.calling_aet or modality or "HILUM"

    def connect(self, calling_aet: str) -> Association:
        """The association as that title. Raises `Outage`."""
        if self._association is not None and self._association.is_established and self._calling == calling_aet:
            return self._association
        self.close()
        ae = AE(ae_title=calling_aet)
        ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = self._sink.timeout_s
        ae.add_requested_context(ModalityPerformedProcedureStep, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        ae.add_requested_context(Verification)
        tls_args = (self._tls.context(), self._tls.server_name or self._sink.host) if self._tls is not None else None
        association = ae.associate(self._sink.host, self._sink.port, ae_title=self._sink.aet.strip(), tls_args=tls_args)
        taken = {context.abstract_syntax for context in association.accepted_contexts} if association.is_established else set()
        if ModalityPerformedProcedureStep not in taken:
            why = "refuses performed procedure steps" if association.is_established else "accepts no association"
            if association.is_established:
                association.release()
            raise Outage(f"{self.where} {why}.", fix="Check host, port and AE titles, and that it is an MPPS SCP.")
        self._association, self._calling = association, calling_aet
        return association

    def say(self, calling_aet: str, said: Said) -> tuple[int, int]:
        """Say one message; status and Error ID. Raises `Outage`."""
        association = self.connect(calling_aet)
        ready(association)
        send: Any = association.send_n_create if said.create else association.send_n_set
        status, _ = send(_data_set(said.attributes), ModalityPerformedProcedureStep, said.sop_instance_uid)
        if "Status" not in status:
            self.close()
            raise Outage(f"{self.where} gave no answer.", fix="Look at its log.")
        return int(status.Status), int(status.get("ErrorID") or 0)

    def close(self) -> None:
        """Release the association. May be repeated."""
        if self._association is not None and self._association.is_established:
            self._association.release()
        self._association = None


class Steps(InOrder):
    """Says messages in their order."""

    def __init__(self, peer: Peer, queued: Queued, patience_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(queued, clock)
        self._peer = peer
        self._patience_s = patience_s

    def rest(self) -> None:
        """See `Session.rest`."""
        super().rest()
        self._peer.close()

    def close(self) -> None:
        """See `Session.close`."""
        self._peer.close()
        super().close()

    def _send(self, message: Outgoing) -> Outcome:
        if not message.text:
            return Park("The message names too many objects to be passed on.", fix="Tell the RIS by hand, then cancel the delivery.")
        modality, _, body = message.text.partition("\n")
        said = msgspec.json.decode(body, type=Said)
        status, error_id = self._peer.say(self._peer.calls_as(modality), said)
        code = f"0x{status:04X}"
        if status in _DONE or status >> 12 == 0xB:
            return Settled(state="delivered", peer_status=code, comment="said")
        if (said.create and status == _DUPLICATE) or (not said.create and status == _PROCESSING_FAILURE and error_id == _FINAL):
            return Settled(state="already_there", peer_status=code, comment="it was said before")
        if status in (_PROCESSING_FAILURE, _RESOURCES):
            outage = Outage(f"{self._peer.where} cannot take it now ({code}).", fix="Look at its log.")
            self._rejected_for_now(message, outage, self._patience_s if status == _PROCESSING_FAILURE else 0.0)
        fix = "Correct what it objects to, then `hilum deliver retry`."
        return Park(f"{self._peer.where} does not take it ({code}).", fix=fix, peer_status=code)


def _data_set(attributes: Mapping[str, Any]) -> Dataset:
    """The data set as the modality encoded its text."""
    json = dict(attributes)
    terms = [str(term or "") for term in json.pop(SPECIFIC_CHARACTER_SET, {}).get("Value", ())]
    chosen = character_set(*terms) or character_set(UNICODE)
    assert chosen is not None
    return read_dataset(BytesIO(encode(json, chosen, explicit=True)), is_implicit_VR=False, is_little_endian=True)
