"""Who a sender is, by the settings: its network address, and what its messages say in MSH-3 and MSH-4."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address, ip_network

from hilum.errors import Misconfigured
from hilum.hl7.charset import codec
from hilum.hl7.envelope import Envelope
from hilum.hl7_sections import Hl7, Hl7Sender, Validation
from hilum.misfits import nearest
from hilum.settings import check_network

#: For senders that are in no settings.
UNKNOWN = Hl7Sender()


class Senders:
    """The senders of the settings. Raises `Misconfigured` if a network or a character set of theirs is none."""

    def __init__(self, settings: Hl7) -> None:
        self._settings = settings
        for name, sender in settings.senders.items():
            for network in sender.addresses:
                check_network(network, f"hl7.senders.{name}.addresses")
            _check_set(sender.character_set, f"hl7.senders.{name}.character_set")
        _check_set(settings.character_set, "hl7.character_set")
        self._matches = lru_cache(maxsize=4096)(self._found)

    def find(self, peer: str, envelope: Envelope) -> tuple[str, Hl7Sender] | None:
        """Name and settings of the sender of a message; an empty name for one that is not there; None if it may not send."""
        return self._matches(peer, envelope.sending_application, envelope.sending_facility)

    def may_connect(self, peer: str) -> bool:
        """Whether anything that this address could send would be taken."""
        return self._settings.unknown_senders == "accept" or any(
            _is_in(peer, sender.addresses) for sender in self._settings.senders.values()
        )

    def validation_of(self, sender: Hl7Sender) -> Validation:
        """How messages of a sender are held against the grammar."""
        return sender.validation or self._settings.validation

    def character_set_of(self, peer: str) -> str:
        """What messages from an address are read as that declare no character set: before they are read, nothing else is known."""
        for sender in self._settings.senders.values():
            if sender.character_set and sender.addresses and _is_in(peer, sender.addresses):
                return sender.character_set
        return self._settings.character_set

    def _found(self, peer: str, application: str, facility: str) -> tuple[str, Hl7Sender] | None:
        for name, sender in self._settings.senders.items():
            if (
                _is_in(peer, sender.addresses)
                and (not sender.applications or application in sender.applications)
                and (not sender.facilities or facility in sender.facilities)
            ):
                return name, sender
        return ("", UNKNOWN) if self._settings.unknown_senders == "accept" else None


def _is_in(peer: str, networks: tuple[str, ...]) -> bool:
    if not networks:
        return True
    try:
        address = ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return any(mapped in ip_network(network, strict=False) for network in networks)


def _check_set(name: str, setting: str) -> None:
    if name and not codec(name):
        known = ["ASCII", "8859/1", "8859/2", "8859/15", "GB 18030-2000", "KS X 1001", "BIG-5", "ISO IR87", "UNICODE UTF-8"]
        near = nearest(name, known, cutoff=0.5)
        raise Misconfigured(
            "character-set-unknown",
            f"{setting}: {name!r} is no character set of HL7 table 0211 that Hilum can read.",
            fix=f"Did you mean {near!r}?" if near else f"Some are: {', '.join(known)}.",
        )
