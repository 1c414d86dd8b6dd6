"""The SQL view of HL7 messages."""

from __future__ import annotations

from hilum.database.view import View

HL7_VIEWS = (
    View(
        name="v_hl7_message",
        says="One row for each HL7 message that came, and for each thing that came and was not taken as one.",
        source="FROM hl7_message AS h WHERE h.received_at IS NOT NULL",
        columns="""
            message_id | h.message_id | its id in events
            received_at | h.received_at | when it was acknowledged
            sender | h.sender | its name in `hl7.senders`; null if it is not there
            peer | h.peer | network address it came from
            sending_application | h.sending_application | MSH-3
            sending_facility | h.sending_facility | MSH-4
            receiving_application | h.receiving_application | MSH-5
            receiving_facility | h.receiving_facility | MSH-6
            control_id | h.control_id | MSH-10
            code | h.code | MSH-9.1, such as `ADT`
            trigger | h.trigger | MSH-9.2, such as `A08`
            version | h.version | MSH-12
            character_set | h.character_set | MSH-18
            message_time | h.message_time | MSH-7 as it was sent
            size_bytes | h.size_bytes | of the message as it came
            text | h.text | the message; of a refused one its beginning
            text_cut | h.text_cut | whether `text` is not all of it
            object_key | h.object_key | where the bytes are that came, if `text` does not tell all of them
            changed | h.changed_under_control_id | whether other content came before under this control id
            findings | h.findings | what was odd when it came: an array of `{code, sentence, path}`
            grammar | h.grammar | what its version's grammar does not allow in it, the same
            refused | h.refused | why it was not taken; null if it was
            acknowledgement | h.acknowledgement | what a refused one was answered
            replays | h.replays | the message that this one says again, on somebody's wish
            patient_ids | h.patient_ids | identifiers of patients that it names, an array; null of old messages, as the next
            order_numbers | h.order_numbers | placer, filler and accession numbers that it names, an array
        """,
    ),
)
