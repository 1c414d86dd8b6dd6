"""HL7 version 2 messages: a tolerant reader that takes what hospitals send, and says what is odd about it.

Without sockets and without Kafka: bytes become text (`charset`), text becomes segments and values (`message`), what is wrong becomes
an acknowledgement (`acknowledgement`). The grammar of each version is hl7apy's (`validation`).
"""
