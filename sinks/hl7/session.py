"""HL7 messages on their way: each until it is acknowledged."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from hilum.dicom.writing import transliterated
from hilum.errors import NotFound
from hilum.hl7.charset import encode, fits
from hilum.in_order import InOrder, Outcome, Queued
from hilum.notices import Outgoing
from hilum.sink import Outage, Park, Settled

from .client import Acknowledged, Client


class Messages(InOrder):
    """Sends messages over MLLP."""

    def __init__(
        self,
        client: Client,
        queued: Queued,
        character_set: str,
        stored: Callable[[str, str], bytes],
        *,
        try_again: Collection[str] = (),
        patience_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`stored` reads an object by bucket and key; it may raise `TryAgain`. `try_again` and `patience_s` are as in the sink."""
        super().__init__(queued, clock)
        self._client = client
        self._character_set = character_set
        self._stored = stored
        self._try_again, self._patience_s = try_again, patience_s

    def close(self) -> None:
        """See `Session.close`."""
        self._client.close()
        super().close()

    def _send(self, message: Outgoing) -> Outcome:
        if not message.text:
            return Park("The message is too large for `set` and `without`, and is not passed on.", fix="Send it with `hilum hl7 send`.")
        try:
            content = self._content(message)
        except NotFound:
            return Park("Its bytes are no longer in the object store.", fix="Have it sent to Hilum again, and cancel the delivery.")
        except ValueError as error:
            return Park(str(error), fix="Correct the destination's character_set.")
        answer = self._client.send(message.control_id, content)
        if answer.is_taken:
            return Settled(state="delivered", peer_status=answer.code, comment="acknowledged")
        if answer.is_rejected or answer.error in self._try_again:
            says = f"{self._client.where} rejects messages for now ({answer.code}{_with(answer)})."
            fix = "Look at the receiver. If it never takes the first one, `hilum deliver cancel` lets the others pass."
            self._rejected_for_now(message, Outage(says, fix=fix), self._patience_s)
        return Park(
            f"The receiver does not take it ({answer.code}{_with(answer)}).",
            fix="Correct what it objects to, then `hilum deliver retry`.",
            peer_status=answer.code,
            peer_comment=answer.says,
        )

    def _content(self, message: Outgoing) -> bytes:
        if message.object_key:
            return self._stored(message.bucket, message.object_key)
        if message.content is not None:
            return message.content
        return encode(transliterated(message.text, lambda each: fits(each, self._character_set)), self._character_set)


def _with(answer: Acknowledged) -> str:
    return f", {answer.error}" if answer.error.isdigit() and len(answer.error) <= 6 else ""
