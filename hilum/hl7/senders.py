"""What the settings say of a sender's messages, where these do not say it themselves."""

from __future__ import annotations

from datetime import UTC, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from hilum.errors import Misconfigured
from hilum.settings import Settings

from .extract import Defaults


def defaults_of(settings: Settings, name: str) -> Defaults:
    """Of the sender `name` of `hl7.senders`; of one that is not there, the site's. Raises `Misconfigured` if there is no such time zone."""
    sender = settings.hl7.senders.get(name)
    if sender is None:
        return Defaults(zone=zone_of(settings.orders.time_zone, "orders.time_zone"))
    own = zone_of(sender.time_zone, f"hl7.senders.{name}.time_zone") if sender.time_zone else None
    return Defaults(
        issuer_of_patient_id=sender.issuer_of_patient_id,
        issuer_of_accession_number=sender.issuer_of_accession_number,
        issuer_of_orders=sender.issuer_of_orders,
        zone=own or zone_of(settings.orders.time_zone, "orders.time_zone"),
    )


def zone_of(name: str, where: str) -> tzinfo:
    """The time zone of a name, which was given as `where`; UTC of an empty one. Raises `Misconfigured` if there is none."""
    try:
        return ZoneInfo(name) if name else UTC
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise Misconfigured("time-zone-unknown", f"{where}: there is no time zone {name!r}.", fix="Write it as Europe/Vienna.") from None
