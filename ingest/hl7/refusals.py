"""Why something that came is not taken as a message: the answer, its condition code, and what is said to people."""

from __future__ import annotations

from msgspec import Struct

from hilum.hl7.acknowledgement import Answer


class Refusal(Struct, frozen=True):
    """One reason. `answer` None: nothing is answered, since the sender has not ended a message, or cannot be told apart."""

    reason: str
    answer: Answer | None
    #: Of table 0357.
    condition: str
    sentence: str
    fix: str


REFUSALS: dict[str, Refusal] = {
    refusal.reason: refusal
    for refusal in (
        Refusal(
            "no-header",
            Answer.ERROR,
            "100",
            "The message does not begin with MSH.",
            "Have the sender's interface checked: it sends no HL7.",
        ),
        Refusal(
            "field-separator", Answer.ERROR, "102", "MSH-1 is no field separator.", "Have the sender's interface checked (v2.5.1 2.5.4)."
        ),
        Refusal(
            "encoding-characters",
            Answer.ERROR,
            "102",
            "MSH-2 does not hold encoding characters that can be told apart.",
            "Have the sender's interface checked: MSH-2 is usually ^~\\&.",
        ),
        Refusal(
            "message-too-long",
            Answer.ERROR,
            "104",
            "The message is longer than hl7.max_message_bytes.",
            "Raise hl7.max_message_bytes if such messages are meant to come.",
        ),
        Refusal(
            "grammar",
            Answer.ERROR,
            "199",
            "The grammar of its version does not allow the message, and its sender's validation is strict.",
            "Have the sender correct it, or set `validation` of the sender to `lenient`.",
        ),
        Refusal(
            "message-unsupported",
            Answer.REJECT,
            "200",
            "Its version has no such message, or there is no such version, and its sender's validation is strict.",
            "Have the sender correct MSH-9 or MSH-12, or set `validation` of the sender to `lenient`.",
        ),
        Refusal(
            "processing-id",
            Answer.REJECT,
            "202",
            "MSH-11 is none of the processing ids that are taken from this sender.",
            "Add it to `processing_ids` of the sender if messages for training or debugging are meant to come.",
        ),
        Refusal(
            "sender-unknown",
            Answer.REJECT,
            "207",
            "No sender of the settings fits, and hl7.unknown_senders is `refuse`.",
            "Add the sender to `hl7.senders` with its address, application or facility.",
        ),
        Refusal(
            "spool-full",
            Answer.REJECT,
            "207",
            "The message cannot be made durable: the spool's disk is full or fails.",
            "Free some space, or let Kafka come back.",
        ),
        Refusal(
            "validation-failed",
            Answer.REJECT,
            "207",
            "The message could not be held against the grammar: the validating process died.",
            "Look at the role's log; the sender tries again.",
        ),
        Refusal(
            "unterminated",
            None,
            "",
            "The block did not end: another began, the connection ended, or nothing more came.",
            "The sender has no acknowledgement and sends it again. If that happens often, look at the network between.",
        ),
        Refusal(
            "garbage",
            None,
            "",
            "There was something between blocks that is no part of MLLP.",
            "Have the sender's interface checked: a message must be between VT and FS CR.",
        ),
    )
}
#: What is too frequent to be kept one by one, from whoever can open a connection.
LIMITED = ("garbage", "unterminated", "no-header", "field-separator", "encoding-characters", "sender-unknown", "message-too-long")
