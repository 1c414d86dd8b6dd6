"""The services of a receiver that the settings turn on: worklist and performed procedure steps."""

from __future__ import annotations

import threading

from msgspec import Struct

from hilum.procedures import Procedures
from hilum.settings import Settings

from .negotiation import MODALITY_WORKLIST, PERFORMED_STEP
from .performed import Performing
from .worklist import Finder, Following


class Services(Struct, frozen=True, kw_only=True):
    """What is served beside storage, verification and storage commitment."""

    finder: Finder | None = None
    performing: Performing | None = None

    @property
    def abstract_syntaxes(self) -> frozenset[str]:
        """What may be proposed for them."""
        found = {MODALITY_WORKLIST: self.finder, PERFORMED_STEP: self.performing}
        return frozenset(uid for uid, service in found.items() if service is not None)

    @classmethod
    def of(cls, settings: Settings, stop: threading.Event) -> Services:
        """Those of `settings`; until `stop`, the steps are followed."""
        finder = Finder(settings) if settings.worklist.serve else None
        if finder is not None:
            Following(settings, finder, stop).start()
        performing = Performing(Procedures(settings)) if settings.worklist.mpps else None
        return cls(finder=finder, performing=performing)
