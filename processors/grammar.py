"""Hold HL7 messages against the grammar of their version, after they were acknowledged. Stateless.

Reads `hl7.message.received.v1`, writes `hl7.message.validated.v1` where something was found. It takes some ten milliseconds a message and
may be behind: nobody waits for it. Senders whose `validation` is `strict` are held against the grammar before the acknowledgement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from hilum.events import MessageFinding, MessageReceived, MessageValidated
from hilum.hl7.envelope import VERSIONS
from hilum.hl7.validation import Fault, validated
from hilum.role import Role
from hilum.runtime.loop import ProcessorRole
from hilum.settings import Hl7, Settings

#: A longer text would keep others waiting for seconds; its envelope was looked at when it came.
MOST_CHARACTERS = 200_000
TOO_LONG = MessageFinding(code="not-validated", sentence="The message is too long to be held against the grammar.")


class Grammar:
    """What the grammar does not allow in each message."""

    name = "grammar"

    def __init__(
        self,
        settings: Hl7,
        *,
        validate: Callable[[str], list[Fault]] = validated,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._validate = validate
        self._now = now

    def handle(self, event: MessageReceived) -> Iterator[MessageValidated]:
        """Tell what is found, if anything is."""
        sender = self._settings.senders.get(event.sender)
        if ((sender.validation if sender else "") or self._settings.validation) == "off":
            return
        if event.text_cut or len(event.text) > MOST_CHARACTERS:
            found: tuple[MessageFinding, ...] = (TOO_LONG,)
        else:
            faults = self._validate(event.text)
            found = tuple(MessageFinding(code=fault.code, sentence=fault.sentence, path=fault.path) for fault in faults)
        if found:
            version = event.version if event.version in VERSIONS else ""
            yield MessageValidated(message_id=event.message_id, version=version, findings=found, validated_at=self._now())


def role(settings: Settings) -> Role:
    """The role `grammar`."""
    return ProcessorRole(settings, Grammar(settings.hl7))
