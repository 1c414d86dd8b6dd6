"""Who may send, and on what terms: by calling AE title, address and called AE title.

The settings say what holds in general; `hilum sender allow` and `hilum sender block` change it for one sender at once, without a
restart (`hilum/senders.py`).
"""

from __future__ import annotations

import threading
import time

from msgspec import Struct

from hilum.senders import Exceptions, is_among
from hilum.settings import Settings

from . import negotiation
from .negotiation import Rejection, Request

#: So much of its rate a sender may use in advance.
BURST_S = 1.0


class Terms(Struct, frozen=True, kw_only=True):
    """What a sender may do in its association."""

    max_object_bytes: int
    #: Objects a second; 0: as many as it can.
    max_objects_per_s: float


class Senders:
    """The rules of one receiver."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._exceptions = Exceptions.of(settings)
        self._lock = threading.Lock()
        #: When the next object of a sender with a rate is due, on the monotonic clock: over all its associations with this process.
        self._due: dict[str, float] = {}

    def reason_to_reject(self, request: Request, peer: str) -> Rejection | None:
        """Why the sender of `request`, at the address `peer`, is not served; None if it is (PS3.8 9.3.4)."""
        dicom = self._settings.dicom
        title = dicom.titles.get(request.called_aet)
        if title is None and request.called_aet != dicom.aet.strip() and not dicom.any_called_aet:
            return negotiation.CALLED_AET
        sender = self._settings.senders.get(request.calling_aet)
        exception = self._exceptions.of_sender(request.calling_aet)
        if exception is not None and exception.blocked:
            return negotiation.BLOCKED
        if sender is None and exception is None:
            unknown = title.unknown_senders if title is not None and title.unknown_senders else dicom.unknown_senders
            return None if unknown == "accept" else negotiation.CALLING_AET
        addresses = (*(sender.addresses if sender else ()), *(exception.addresses if exception else ()))
        if addresses and not is_among(peer, addresses):
            return negotiation.WRONG_ADDRESS
        if sender is not None and sender.called and request.called_aet not in sender.called:
            return negotiation.WRONG_TITLE
        return None

    def terms(self, calling_aet: str, called_aet: str) -> Terms:
        """The narrowest that settings say for the sender, the title it called, and the receiver."""
        dicom = self._settings.dicom
        sender, title = self._settings.senders.get(calling_aet), dicom.titles.get(called_aet)
        limits = [dicom.max_object_bytes, *(each.max_object_bytes for each in (sender, title) if each is not None)]
        return Terms(
            max_object_bytes=min(limit for limit in limits if limit),
            max_objects_per_s=sender.max_objects_per_s if sender is not None else 0.0,
        )

    def ahead_s(self, calling_aet: str, per_second: float) -> float:
        """Count an object of a sender; by how many seconds it is ahead of its rate, beyond what it may use in advance."""
        with self._lock:
            now = time.monotonic()
            due = self._due[calling_aet] = max(self._due.get(calling_aet, now), now) + 1 / per_second
        return max(0.0, due - now - BURST_S)
