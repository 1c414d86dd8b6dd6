"""An object on its way out in another form than it came in: the one way for every sink that sends objects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from hilum.dicom.decoding import DecoderLost
from hilum.dicom.lossy import Lossy, suits
from hilum.dicom.recode import CannotRecode
from hilum.dicom.transcode import Pieces, lossy, transcoded
from hilum.part10 import Part10
from hilum.sink import Delivery, Later, Settled

#: So often a decoder may be lost over an object before that is held against the object.
DECODERS_LOST = 3

#: Compression with loss that a destination may ask for.
LossySyntax = Literal["", "jpeg-2000"]


class Rewritten(Struct, frozen=True, kw_only=True):
    """An object as it goes out."""

    transfer_syntax_uid: str
    #: The object's own, unless it is compressed with loss.
    sop_instance_uid: str
    #: Without preamble and File Meta.
    data_set: Pieces


def lossy_of(syntax: LossySyntax, ratio: float, *, transcode: bool) -> Lossy | None:
    """What a sink's settings ask for. Raises `ValueError` if they cannot be meant."""
    if bool(syntax) != bool(ratio):
        raise ValueError("`lossy` and `lossy_ratio` go together")
    if not syntax:
        return None
    if not 2 <= ratio <= 100:
        raise ValueError("`lossy_ratio` must be from 2 to 100")
    if not transcode:
        raise ValueError('`transcode` is "never", so `lossy` may not be there')
    return Lossy(ratio=ratio)


def may_be_lossy(delivery: Delivery, wanted: Lossy | None) -> bool:
    """Whether the object is of a kind that is compressed with loss."""
    return wanted is not None and suits(delivery.sop_class_uid, delivery.transfer_syntax_uid)


@contextmanager
def in_syntax(delivery: Delivery, part10: Part10, transfer_syntax_uid: str) -> Iterator[Rewritten]:
    """The object in another transfer syntax, without loss. It and its pieces may raise `CannotRecode`, and what `part10` raises."""
    with part10.mapped() as (whole, at):
        data_set = transcoded(whole, at, delivery.transfer_syntax_uid, transfer_syntax_uid)
        yield Rewritten(transfer_syntax_uid=transfer_syntax_uid, sop_instance_uid=delivery.sop_instance_uid, data_set=data_set)


@contextmanager
def with_loss(delivery: Delivery, part10: Part10, wanted: Lossy) -> Iterator[Rewritten | None]:
    """The image that is made of the object, None if it is not to be compressed so. Raises as `in_syntax` does."""
    with part10.mapped() as (whole, at):
        made = lossy(whole, at, delivery.transfer_syntax_uid, wanted)
        yield None if made is None else Rewritten(transfer_syntax_uid=wanted.syntax, sop_instance_uid=made[0], data_set=made[1])


def not_rewritten(delivery: Delivery, error: CannotRecode, why: str) -> Settled:
    """What becomes of an object that has to be rewritten and cannot be; `why` says what it was to be rewritten for.

    Raises `Later` while what ended the decoder may have been another thing than the object, such as a machine short of memory.
    """
    sentence = f"{why}, and the object cannot be rewritten: {error}."
    if isinstance(error, DecoderLost) and delivery.attempts + 1 < DECODERS_LOST:
        raise Later(sentence, fix="Hilum tries again; look whether the machine is short of memory.") from None
    return Settled(state="rejected", comment=sentence)


def sent_as(settled: Settled, rewritten: Rewritten, delivery: Delivery) -> Settled:
    """The outcome, with the UID under which the peer has the object if that is another."""
    if settled.state == "rejected" or rewritten.sop_instance_uid == delivery.sop_instance_uid:
        return settled
    return replace(settled, sent_as=rewritten.sop_instance_uid)
