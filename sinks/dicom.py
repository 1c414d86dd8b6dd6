"""Store each instance at a DICOM node by C-STORE (PS3.4 B), one association a study, in the bytes that were received."""

from __future__ import annotations

import io
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Annotated, Literal

import pydicom
from msgspec import Meta
from msgspec.structs import replace
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedSRStorage,
    KeyObjectSelectionDocumentStorage,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    XRayAngiographicImageStorage,
)

from hilum.association import REFUSALS, Answer, Association, AssociationLost
from hilum.database.queries import Kind, kinds_of_objects
from hilum.errors import HilumError
from hilum.kinds import AeTitle, Host, OptionalAeTitle, PduBytes, Port, Seconds, refuse_tiny_pdus
from hilum.outcomes import Meanings, meanings
from hilum.part10 import Part10, data_set_offset
from hilum.peer import NoAssociation, Peer, addresses, connect
from hilum.profiles import Outcome, Profile, StatusCode, profile
from hilum.settings import Settings
from hilum.sink import Delivery, Later, Outage, Session, Settled, Sink, Step, step
from hilum.upper_layer import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, MAX_CONTEXTS, VERIFICATION, Context

_DEFLATED = "1.2.840.10008.1.2.1.99"
#: Transfer syntaxes that can be written one as the other without touching a pixel.
_CONVERTIBLE = frozenset({IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, _DEFLATED})

#: Longest wait of a check for one answer, in seconds, however patient deliveries are.
CHECK_WAITS_S = 10.0

#: What `check` asks the peer about, beside C-ECHO: each class uncompressed and in each of `COMPRESSIONS`.
USUAL_SOP_CLASSES = (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    CTImageStorage,
    EnhancedCTImageStorage,
    MRImageStorage,
    EnhancedMRImageStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    SecondaryCaptureImageStorage,
    XRayAngiographicImageStorage,
    PositronEmissionTomographyImageStorage,
    EnhancedSRStorage,
    KeyObjectSelectionDocumentStorage,
)


#: Transfer syntaxes that modalities compress in (PS3.5 10), by the names that people use.
COMPRESSIONS = {
    "1.2.840.10008.1.2.4.50": "JPEG Baseline",
    "1.2.840.10008.1.2.4.70": "JPEG Lossless",
    "1.2.840.10008.1.2.4.80": "JPEG-LS Lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 Lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.5": "RLE",
}


class Dicom(Sink, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A DICOM node that takes C-STORE."""

    host: Host
    port: Annotated[int, Meta(ge=1, le=65535)]
    #: The peer's AE title.
    aet: AeTitle
    #: Hilum's AE title towards this peer; empty: `dicom.aet`.
    calling_aet: OptionalAeTitle = ""
    connect_timeout_s: Seconds = 10.0
    #: For the answer to an association request.
    association_timeout_s: Seconds = 30.0
    #: For the answer to a C-STORE, and for the peer to take the next megabyte of one.
    response_timeout_s: Seconds = 60.0
    #: An association stays open for so long after its last object, in seconds.
    idle_s: Annotated[float, Meta(ge=0, le=86_400)] = 5.0
    #: `study`: each study has an association of its own; `none`: whatever comes next shares it.
    group_by: Literal["study", "none"] = "study"
    #: Longest PDU sent, if the peer takes it; 0: as long as the peer takes; less than 4,096 is refused.
    max_pdu_bytes: PduBytes = 0
    #: The AE title by which it is asked what it has (C-FIND), if that is not `aet`.
    query_aet: OptionalAeTitle = ""
    #: The port for that, if it is not `port`.
    query_port: Port = 0
    #: What is known of this product; empty: the standard at its word. Known ones: docs/reference/profiles.md.
    profile: str = ""
    #: What becomes of an object, by the peer's status, where that is to be otherwise than the profile says: `"0xC000" = "retry"`.
    statuses: dict[StatusCode, Outcome] = {}  # noqa: RUF012  # msgspec copies an empty one

    def __post_init__(self) -> None:
        refuse_tiny_pdus(self.max_pdu_bytes)

    @property
    def grouped(self) -> bool:
        """See `Sink.grouped`."""
        return self.group_by == "study"

    def peer(self, settings: Settings) -> Peer:
        """The node, as `hilum.association` wants it."""
        return Peer(
            host=self.host,
            port=self.port,
            aet=self.aet,
            calling_aet=self.calling_aet or settings.dicom.aet,
            connect_timeout_s=self.connect_timeout_s,
            association_timeout_s=self.association_timeout_s,
            response_timeout_s=self.response_timeout_s,
            max_pdu_bytes=self.max_pdu_bytes,
        )

    def query_peer(self, settings: Settings) -> Peer:
        """The node that answers queries about what it stored: the same, unless a title of its own is set for them."""
        return replace(self.peer(settings), aet=self.query_aet or self.aet, port=self.query_port or self.port)

    def holdings(self, settings: Settings, study_instance_uid: str, series_instance_uids: Collection[str]) -> frozenset[str]:
        """See `Sink.holdings`: by C-FIND."""
        from hilum.find import instances_of  # brings all of pynetdicom, which nothing else here needs

        return instances_of(self.query_peer(settings), study_instance_uid, series_instance_uids)

    def open(self, settings: Settings) -> Session:
        """See `Sink.open`."""
        return _Associations(self.peer(settings), self.grouped, self.idle_s, meanings(self.profile, self.statuses))

    def check(self, settings: Settings) -> Iterator[Step]:
        """See `Sink.check`: name, TCP, association, presentation contexts, C-ECHO.

        With `postgres.dsn` it also asks about the kinds of objects that the index holds. A person waits for it, so no answer is
        waited for longer than `CHECK_WAITS_S`.
        """
        peer = hurried(self.peer(settings))
        with step("name") as resolving:
            found = addresses(peer)
            resolving.says = f"{peer.host} is {', '.join(address for address, _ in found)}"
        yield resolving.done
        if not resolving.done.ok:
            return
        kinds = _kinds(settings)
        with step("connection") as connecting:
            connection = connect(peer, found)
            connecting.says = f"port {peer.port} takes connections"
        yield connecting.done
        if not connecting.done.ok:
            return
        verification = Context(abstract_syntax=VERIFICATION, transfer_syntax=IMPLICIT_VR_LITTLE_ENDIAN)
        contexts = dict.fromkeys([verification])
        for sop_class in USUAL_SOP_CLASSES:
            for transfer_syntax in (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, *COMPRESSIONS):
                contexts[Context(abstract_syntax=sop_class, transfer_syntax=transfer_syntax)] = None
        for kind in kinds:
            contexts |= dict.fromkeys(_contexts(kind.sop_class_uid, kind.transfer_syntax_uid))
        with step("association") as associating:
            association = Association(peer, list(contexts)[:MAX_CONTEXTS], connection)
            associating.says = f"{peer.aet} admits {peer.calling_aet}"
        yield associating.done
        if not associating.done.ok:
            return
        try:
            yield _contexts_step(association)
            if any(context != verification for context in association.accepted):
                yield _compressions_step(association)
                if self.profile:
                    yield _profile_step(association, profile(self.profile), self.query_aet)
            if kinds:
                yield _kinds_step(association, kinds)
            with step("C-ECHO") as echoing:
                if verification not in association.accepted:
                    raise NoAssociation(f"{peer.aet} takes no C-ECHO.", fix="Nothing to do, if it takes images.")
                answer = association.c_echo()
                if answer.status:
                    raise NoAssociation(f"{peer.aet} answered 0x{answer.status:04X} to C-ECHO.", fix="The peer's own log says why.")
                echoing.says = f"{peer.aet} answered"
            yield echoing.done
        finally:
            association.release()


def hurried(peer: Peer) -> Peer:
    """The same peer, waited for no longer than `CHECK_WAITS_S`."""
    return replace(
        peer,
        connect_timeout_s=min(peer.connect_timeout_s, CHECK_WAITS_S),
        association_timeout_s=min(peer.association_timeout_s, CHECK_WAITS_S),
        response_timeout_s=min(peer.response_timeout_s, CHECK_WAITS_S),
    )


def _contexts_step(association: Association) -> Step:
    taken = {context.abstract_syntax for context in association.accepted}
    names = [sop_class.name.removesuffix(" Storage") for sop_class in USUAL_SOP_CLASSES if sop_class not in taken]
    count = len(USUAL_SOP_CLASSES) - len(names)
    with step("presentation contexts") as asking:
        if not count:
            raise NoAssociation(
                f"{association.peer.aet} takes none of {len(names)} usual SOP classes.",
                fix=f"Ask its administrator to let {association.peer.calling_aet} store images, not only query or echo.",
            )
        asking.says = f"takes {count} of {len(USUAL_SOP_CLASSES)} usual SOP classes" + (f"; not {', '.join(names)}" if names else "")
    return asking.done


def _compressions_step(association: Association) -> Step:
    """How compressed objects are taken. One that is not goes nowhere: Hilum changes no pixels. That is not wrong in itself."""
    taken = dict.fromkeys(context.abstract_syntax for context in association.accepted if context.abstract_syntax in USUAL_SOP_CLASSES)
    whole, partly, refused = [], [], []
    for transfer_syntax, name in COMPRESSIONS.items():
        count = sum(Context(abstract_syntax=each, transfer_syntax=transfer_syntax) in association.accepted for each in taken)
        if not count:
            refused.append(name)
        elif count == len(taken):
            whole.append(name)
        else:
            partly.append(f"{name} for {count} of {len(taken)} SOP classes")
    with step("compression") as asking:
        said = [f"takes {', '.join(whole + partly)}"] * bool(whole or partly) + [f"takes no {', no '.join(refused)}"] * bool(refused)
        asking.says = "; ".join(said)
    return asking.done


def _profile_step(association: Association, profile: Profile, query_aet: str) -> Step:
    """Whether the peer is as its profile says. Where it is not, the profile may be of another release, or the peer is set otherwise."""
    with step("profile") as comparing:
        storage = [each for each in (*association.accepted, *association.refused) if each.abstract_syntax != VERIFICATION]
        taken = {each.transfer_syntax for each in association.accepted}
        found = profile.against({each.transfer_syntax for each in storage}, taken)
        if profile.fact("dicom", "query_title") == "separate" and not query_aet:
            found.append("its queries have an AE title of their own, and `query_aet` is not set")
        known = "a stub, all values are defaults" if profile.is_stub else "as documented"
        comparing.says = f"{profile.title}: {'; '.join(found) or known}"
    return comparing.done


def _kinds(settings: Settings) -> list[Kind]:
    if settings.postgres.dsn:
        with suppress(HilumError):  # the peer can be tested without the index
            return kinds_of_objects(settings.postgres.dsn, limit=20)
    return []


def _kinds_step(association: Association, kinds: list[Kind]) -> Step:
    """Whether the peer would take what is here. That is not wrong in itself if it would not: rules may send it elsewhere."""
    asked = association.accepted.keys() | association.refused.keys()
    kinds = [kind for kind in kinds if asked.issuperset(_contexts(kind.sop_class_uid, kind.transfer_syntax_uid))]
    refused = [
        f"{UID(kind.sop_class_uid).name.removesuffix(' Storage')} in"
        f" {COMPRESSIONS.get(kind.transfer_syntax_uid) or UID(kind.transfer_syntax_uid).name}"
        for kind in kinds
        if association.accepted.keys().isdisjoint(_contexts(kind.sop_class_uid, kind.transfer_syntax_uid))
    ]
    with step("objects in the index") as asking:
        asking.says = f"takes {len(kinds) - len(refused)} of {len(kinds)} kinds" + (f"; not {'; '.join(refused)}" if refused else "")
    return asking.done


class _Associations:
    """One association at a time, opened for what is to be sent and kept for as long as such work comes."""

    def __init__(self, peer: Peer, by_study: bool, idle_s: float, meanings: Meanings) -> None:
        self._peer = peer
        self._meanings = meanings
        self._by_study = by_study
        self._idle_s = idle_s
        self._association: Association | None = None
        self._study = ""
        self._coming: list[Delivery] = []

    def begin(self, deliveries: Sequence[Delivery]) -> None:
        """See `Session.begin`."""
        self._coming = list(deliveries)
        study = deliveries[0].study_instance_uid if deliveries else ""
        if self._by_study and study != self._study:
            self.close()
        self._study = study

    def deliver(self, delivery: Delivery, part10: Part10) -> Settled:
        """See `Session.deliver`."""
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
        if self._association and time.monotonic() - self._association.used_at >= self._idle_s:
            self.close()

    def close(self) -> None:
        """See `Session.close`."""
        if self._association:
            self._association.release()
            self._association = None

    def _association_for(self, delivery: Delivery) -> Association:
        """The open association, or a new one if it is gone or was not asked for what this object needs."""
        needed = contexts_for(delivery)
        known: dict[Context, None] = {}
        if self._association:
            known = dict.fromkeys((*self._association.accepted, *self._association.refused))
            if all(context in known for context in needed) and self._association.is_open():
                return self._association
            self.close()
        wanted = dict.fromkeys(needed)
        ids = [each.delivery_id for each in self._coming]
        rest = self._coming[ids.index(delivery.delivery_id) :] if delivery.delivery_id in ids else []
        for each in rest:
            wanted |= dict.fromkeys(contexts_for(each))
        wanted |= known
        try:
            self._association = Association(self._peer, list(wanted)[:MAX_CONTEXTS])
        except NoAssociation as error:
            raise Outage(error.sentence, fix=error.fix) from None
        return self._association

    def _store(self, association: Association, delivery: Delivery, part10: Part10) -> Settled:
        asked, *others = contexts_for(delivery)
        if asked in association.accepted:
            return self._settled(association.c_store(asked, delivery.sop_instance_uid, part10.data_set))
        by_syntax = {context.transfer_syntax: context for context in others}
        for context in (by_syntax[uid] for uid in self._meanings.profile.in_order(list(by_syntax))):
            if context in association.accepted:
                try:
                    data = converted(part10.file(), context.transfer_syntax)
                except HilumError:
                    raise
                except Exception:  # pydicom raises whatever the object makes it raise; its text may hold values
                    sentence = f"{self._peer.aet} takes no transfer syntax {asked.transfer_syntax}, and the object cannot be rewritten."
                    return Settled(state="rejected", comment=sentence)
                return self._settled(association.c_store(context, delivery.sop_instance_uid, partial(_pieces, data)))
        return self._refused(association.refused[asked], asked)

    def _settled(self, answer: Answer) -> Settled:
        return self._meanings.of_status(self._peer.aet, answer.status, answer.comment)

    def _refused(self, result: int, context: Context) -> Settled:
        reason = REFUSALS.get(result, f"result {result}")
        what = f"SOP class {context.abstract_syntax} in transfer syntax {context.transfer_syntax}"
        sentence = f"{self._peer.aet} does not take {what}: {reason}."
        if result in (3, 4):
            return Settled(state="rejected", comment=sentence)
        raise Later(sentence, fix="The peer's own log says why.")


def contexts_for(delivery: Delivery) -> list[Context]:
    """The presentation contexts that an object can be sent in: first as it is, then as it can be written without loss (PS3.5 10.1)."""
    return _contexts(delivery.sop_class_uid, delivery.transfer_syntax_uid)


def _contexts(sop_class_uid: str, own: str) -> list[Context]:
    syntaxes = [own]
    if own in _CONVERTIBLE:
        syntaxes += [each for each in (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN) if each != own]
    return [Context(abstract_syntax=sop_class_uid, transfer_syntax=each) for each in syntaxes]


def converted(part10: bytes, transfer_syntax_uid: str) -> bytes:
    """The data set of an uncompressed Part 10 file, written anew as Explicit or Implicit VR Little Endian. Raises what pydicom raises."""
    ds = pydicom.dcmread(io.BytesIO(part10))
    ds.file_meta.TransferSyntaxUID = pydicom.uid.UID(transfer_syntax_uid)
    out = io.BytesIO()
    implicit = transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN
    pydicom.dcmwrite(out, ds, implicit_vr=implicit, little_endian=True, enforce_file_format=True)
    written = out.getvalue()
    return written[data_set_offset(written) :]


def _pieces(data: bytes, size: int) -> Iterator[memoryview]:
    view = memoryview(data)
    for at in range(0, len(view), size):
        yield view[at : at + size]
