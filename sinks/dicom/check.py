"""Try the way to a DICOM destination, step by step, each with what it found or what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from msgspec.structs import replace
from pydicom.uid import UID

from hilum import testobject
from hilum.association import Association
from hilum.database.queries import Kind, kinds_of_objects
from hilum.dicom.lossy import Lossy, suits
from hilum.dicom.transcode import DECODABLE
from hilum.errors import HilumError
from hilum.outcomes import Meanings
from hilum.peer import NoAssociation, Peer, addresses, connect, secure
from hilum.profiles import Profile
from hilum.settings import Settings
from hilum.sink import Later, Park, Step, step
from hilum.upper_layer import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, MAX_CONTEXTS, VERIFICATION, Context

from .session import contexts_of
from .usual import USUAL_SOP_CLASSES

#: Longest wait of a check for one answer, in seconds, however patient deliveries are.
CHECK_WAITS_S = 10.0

#: Transfer syntaxes that modalities compress in (PS3.5 10), by the names that people use.
COMPRESSIONS = {
    "1.2.840.10008.1.2.4.50": "JPEG Baseline",
    "1.2.840.10008.1.2.4.70": "JPEG Lossless",
    "1.2.840.10008.1.2.4.80": "JPEG-LS Lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 Lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.5": "RLE",
}

_ECHO = Context(abstract_syntax=VERIFICATION, transfer_syntax=IMPLICIT_VR_LITTLE_ENDIAN)


def check(
    peer: Peer,
    settings: Settings,
    *,
    transcode: bool,
    with_object: bool,
    profile: Profile | None,
    meanings: Meanings,
    query_aet: str,
    lossy: Lossy | None = None,
) -> Iterator[Step]:
    """Name, TCP, TLS, association, presentation contexts, C-ECHO, and a marked test object if that is allowed."""
    peer = hurried(peer)
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
    if peer.tls is not None:
        with step("TLS") as securing:
            connection = secure(peer, connection)
            securing.says = f"{getattr(connection, 'version', str)()} with {getattr(connection, 'cipher', lambda: ('',))()[0]}"
        yield securing.done
        if not securing.done.ok:
            return
    with step("association") as associating:
        association = Association(peer, _asked(kinds, transcode=transcode), connection)
        associating.says = f"{peer.aet} admits {peer.calling_aet}"
    yield associating.done
    if not associating.done.ok:
        return
    try:
        yield _contexts_step(association)
        if any(context != _ECHO for context in association.accepted):
            yield _compressions_step(association, transcode=transcode)
            if lossy is not None:
                yield _lossy_step(association, lossy)
            if profile is not None:
                yield _profile_step(association, profile, query_aet)
        if kinds:
            yield _kinds_step(association, kinds, transcode=transcode)
        echoing = _echo_step(association)
        yield echoing
        if with_object and echoing.ok:
            yield _object_step(association, meanings)
    finally:
        association.release()


def _asked(kinds: list[Kind], *, transcode: bool) -> list[Context]:
    contexts = dict.fromkeys([_ECHO])
    for sop_class in USUAL_SOP_CLASSES:
        for transfer_syntax in (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, *COMPRESSIONS):
            contexts[Context(abstract_syntax=sop_class, transfer_syntax=transfer_syntax)] = None
    for kind in kinds:
        contexts |= dict.fromkeys(contexts_of(kind.sop_class_uid, kind.transfer_syntax_uid, transcode=transcode))
    return list(contexts)[:MAX_CONTEXTS]


def _echo_step(association: Association) -> Step:
    """C-ECHO; a peer that takes none may take images all the same."""
    peer = association.peer
    with step("C-ECHO") as echoing:
        if _ECHO not in association.accepted:
            echoing.warn(f"{peer.aet} takes no C-ECHO.", fix="Nothing to do, if it takes images.")
        elif (answer := association.c_echo()).status:
            raise NoAssociation(f"{peer.aet} answered 0x{answer.status:04X} to C-ECHO.", fix="The peer's own log says why.")
        else:
            echoing.says = f"{peer.aet} answered"
    return echoing.done


def _object_step(association: Association, meanings: Meanings) -> Step:
    """Store the marked test object. What the peer does with it is for its people to see."""
    peer = association.peer
    with step("test object") as storing:
        contexts = contexts_of(testobject.SOP_CLASS_UID, EXPLICIT_VR_LITTLE_ENDIAN)
        context = next((each for each in contexts if each in association.accepted), None)
        if context is None:
            raise NoAssociation(
                f"{peer.aet} takes no Secondary Capture Image, which the test object is.",
                fix="Test without it, or let the peer take that class.",
            )
        data = memoryview(testobject.data_set(context.transfer_syntax))
        answer = association.c_store(
            context, testobject.SOP_INSTANCE_UID, lambda size: (data[at : at + size] for at in range(0, len(data), size))
        )
        try:
            settled = meanings.of_status(peer.aet, answer.status, answer.comment)
        except (Later, Park) as later:
            raise NoAssociation(later.sentence, fix="It takes associations and no objects now; the peer's own log says why.") from None
        if settled.state == "rejected":
            raise NoAssociation(
                f"{peer.aet} answered {settled.peer_status}: {settled.comment.removeprefix(f'{peer.aet}: ')}",
                fix="The peer's own log says why it does not take the object.",
            )
        where = f"study {testobject.STUDY_INSTANCE_UID} of patient {testobject.PATIENT_ID}"
        storing.says = f"{settled.peer_status}: {where} is there now and may be deleted"
    return storing.done


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


def _compressions_step(association: Association, *, transcode: bool) -> Step:
    """How compressed objects are taken. One that is not is decompressed, or rejected: that is not wrong in itself."""
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
        if refused and any(name in refused for syntax, name in COMPRESSIONS.items() if syntax in DECODABLE):
            asking.says += "; what it does not take is decompressed" if transcode else "; what it does not take is rejected"
    return asking.done


def _lossy_step(association: Association, lossy: Lossy) -> Step:
    """Whether images that are compressed with loss are taken, of each class that is: what is not taken would be rejected."""
    taken = dict.fromkeys(context.abstract_syntax for context in association.accepted)
    usual = [each for each in USUAL_SOP_CLASSES if each in taken and suits(each, EXPLICIT_VR_LITTLE_ENDIAN)]
    refused = [each for each in usual if Context(abstract_syntax=each, transfer_syntax=lossy.syntax) not in association.accepted]
    with step("compression with loss") as asking:
        name = COMPRESSIONS[lossy.syntax]
        if refused:
            which = ", ".join(each.name.removesuffix(" Storage") for each in refused)
            fix = f"Let the peer take {name} of them, or take `lossy` out."
            raise NoAssociation(f"{association.peer.aet} takes no {name} of {which}, and images are to be compressed so.", fix=fix)
        asking.says = f"takes {name} of {len(usual)} SOP classes whose images are compressed {lossy.ratio:g}:1"
    return asking.done


def _profile_step(association: Association, profile: Profile, query_aet: str) -> Step:
    """Whether the peer is as its profile says. Where it is not, the profile may be of another release, or the peer is set otherwise."""
    with step("profile") as comparing:
        storage = [each for each in (*association.accepted, *association.refused) if each.abstract_syntax != _ECHO.abstract_syntax]
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


def _kinds_step(association: Association, kinds: list[Kind], *, transcode: bool) -> Step:
    """Whether the peer would take what is here. Part of it may be for others, by the rules; if it takes nothing, nothing will arrive."""
    asked = association.accepted.keys() | association.refused.keys()
    kinds = [kind for kind in kinds if asked.issuperset(contexts_of(kind.sop_class_uid, kind.transfer_syntax_uid, transcode=transcode))]
    refused = [
        f"{UID(kind.sop_class_uid).name.removesuffix(' Storage')} in"
        f" {COMPRESSIONS.get(kind.transfer_syntax_uid) or UID(kind.transfer_syntax_uid).name}"
        for kind in kinds
        if association.accepted.keys().isdisjoint(contexts_of(kind.sop_class_uid, kind.transfer_syntax_uid, transcode=transcode))
    ]
    peer = association.peer
    with step("objects in the index") as asking:
        says = f"takes {len(kinds) - len(refused)} of {len(kinds)} kinds" + (f"; not {'; '.join(refused)}" if refused else "")
        if refused and len(refused) == len(kinds):
            raise NoAssociation(f"{peer.aet} {says}.", fix=f"Ask its administrator to let {peer.calling_aet} store what is here.")
        if refused:
            asking.warn(f"{says}.", fix="What it does not take waits for a person, unless rules send it elsewhere (`refused_contexts`).")
        else:
            asking.says = says
    return asking.done
