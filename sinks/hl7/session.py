"""HL7 messages on their way: each until it is acknowledged."""

from __future__ import annotations

from hilum.dicom.writing import transliterated
from hilum.hl7.charset import encode
from hilum.in_order import InOrder, Outcome, Queued
from hilum.notices import Outgoing
from hilum.sink import Outage, Park, Settled

from .client import Acknowledged, Client


class Messages(InOrder):
    """Sends messages over MLLP."""

    def __init__(self, client: Client, queued: Queued, character_set: str, rejections: int) -> None:
        super().__init__(queued, rejections)
        self._client = client
        self._character_set = character_set

    def close(self) -> None:
        """See `Session.close`."""
        self._client.close()
        super().close()

    def _send(self, message: Outgoing) -> Outcome:
        if not message.text:
            return Park("The message is larger than 500 KB and is not passed on by itself.", fix="Send it with `hilum hl7 send`.")
        try:
            content = encode(transliterated(message.text, self._encodes), self._character_set)
        except ValueError as error:
            return Park(str(error), fix="Correct the destination's character_set.")
        answer = self._client.send(message.control_id, content)
        if answer.is_taken:
            return Settled(state="delivered", peer_status=answer.code, comment="acknowledged")
        if answer.is_rejected:
            says = f"{self._client.where} rejects messages for now ({answer.code}{_with(answer)})."
            self._rejected_for_now(message, Outage(says, fix="Look at the receiver."))
        return Park(
            f"The receiver does not take it ({answer.code}{_with(answer)}).",
            fix="Correct what it objects to, then `hilum deliver retry`.",
            peer_status=answer.code,
            peer_comment=answer.says,
        )

    def _encodes(self, character: str) -> bool:
        try:
            encode(character, self._character_set)
        except ValueError:
            return False
        return True


def _with(answer: Acknowledged) -> str:
    return f", {answer.error}" if answer.error.isdigit() and len(answer.error) <= 6 else ""
