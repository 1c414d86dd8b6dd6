"""Which sender is which destination, and which image was made of which, so that what a PACS sends back is known for what it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hilum.dicom import CutValue, Header
from hilum.dicom.lossy import may_be_made, source_named
from hilum.events import Instance, Source
from hilum.settings import Settings

#: SourceImageSequence, by which an image that was compressed with loss names the one of which it was made.
SOURCE_IMAGES = "00082112"


def tags_of(instance: Instance) -> frozenset[str]:
    """What of the header must be known to tell of which image this one was made."""
    return frozenset({SOURCE_IMAGES}) if may_be_made(instance.sop_instance_uid) else frozenset()


def made_of(instance: Instance, header: Header) -> str:
    """The SOP instance UID of the image of which Hilum made this one on its way to a destination; empty if it did not."""
    if not may_be_made(instance.sop_instance_uid):
        return ""
    try:
        return source_named(instance.sop_instance_uid, header.values(SOURCE_IMAGES))
    except CutValue:  # beyond what is read of an object: Hilum names one image
        return ""


class Origins:
    """Destinations by the AE titles under which they send.

    A title that several destinations have, such as those of one archive under two names, stands for all of them.
    """

    def __init__(self, destinations: Mapping[str, Mapping[str, Any]], senders: Mapping[str, Iterable[str]] | None = None) -> None:
        """`destinations` are the tables of the settings; `senders` names for a calling AE title further destinations that it is."""
        found: dict[str, dict[str, None]] = {}
        for name, table in destinations.items():
            # What was planned for a group may have gone to any of its members.
            tables = [destinations.get(member, {}) for member in table.get("members", ())] if table.get("type") == "group" else [table]
            for aet in (each.get("aet") for each in tables):
                if isinstance(aet, str) and aet.strip():
                    found.setdefault(aet.strip(), {})[name] = None
        for aet, names in (senders or {}).items():
            found.setdefault(aet.strip(), {}).update(dict.fromkeys(names))
        self._by_title = {aet: tuple(names) for aet, names in found.items()}

    @classmethod
    def of(cls, settings: Settings) -> Origins:
        """Those of `settings`."""
        return cls(settings.destinations, {aet: sender.returns for aet, sender in settings.senders.items()})

    def of_source(self, source: Source) -> tuple[str, ...]:
        """The destinations that this sender is; none if it is not one."""
        return self._by_title.get(source.calling_aet.strip(), ())
