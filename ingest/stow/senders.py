"""Who may send over STOW-RS, and on what terms: the same settings and exceptions that hold for a calling AE title.

A client is known by the title of its key. One without a title is held to what `[stow]` says, and to nothing else.
"""

from __future__ import annotations

from hilum.senders import Exceptions, is_among
from hilum.settings import Settings

from . import answers
from .answers import Refused


class Senders:
    """The rules of one receiver."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._exceptions = Exceptions.of(settings)

    def check(self, title: str, peer: str) -> None:
        """Raise `Refused` if the client `title` was blocked, or may not send from the address `peer`."""
        sender, exception = self._settings.senders.get(title), self._exceptions.of_sender(title)
        if exception is not None and exception.blocked:
            raise Refused(answers.BLOCKED)
        addresses = (*(sender.addresses if sender else ()), *(exception.addresses if exception else ()))
        if addresses and not is_among(peer, addresses):
            raise Refused(answers.WRONG_ADDRESS)

    def max_object_bytes(self, title: str) -> int:
        """Largest object that is taken from the client, in bytes of data set: the narrowest of what holds for it."""
        sender = self._settings.senders.get(title)
        limits = (self._settings.stow.max_object_bytes, sender.max_object_bytes if sender else 0)
        return min(limit for limit in limits if limit)
