"""How objects would leave by a policy now: order, merges, choices, policy and second look as at delivery. Nothing leaves or is written."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from mmap import mmap
from typing import Any

import psycopg
from msgspec import Struct

from hilum.anonymizing import Anonymizer, NotAnonymized, Sealed, SurvivorOf
from hilum.database import connect
from hilum.database.deidentified import studies_made_here
from hilum.database.persons import Standing, standing, survivor_of
from hilum.edited import NotEditable, part10_of
from hilum.identity import Authorities
from hilum.order_events import Identifier, Patient
from hilum.part10 import Missing, Part10, Unsound
from hilum.runtime.delivery.cleans import Cleans
from hilum.runtime.delivery.coercions import Coercions
from hilum.runtime.delivery.left import asking
from hilum.settings import Settings
from hilum.sink import Delivery
from hilum.store import ObjectStore


class Stays(Struct, frozen=True, kw_only=True):
    """Why an object would not leave: as `NotAnonymized` has it, without a value of it."""

    reason: str
    says: str
    fix: str = ""
    place: str = ""


class Ledger:
    """What the ledger knows of patients, for readers: see `cleans.Patients`. Close it in the end."""

    def __init__(self, dsn: str) -> None:
        """Raises `TryAgain`, `Misconfigured`."""
        self.connection: psycopg.Connection[Any] = connect(dsn, name="hilum rehearsal")

    def survivor(self, patient: Identifier, authorities: Authorities) -> Patient | None:
        """Into whom the patient was merged; None if into nobody. Raises `TryAgain`."""
        with asking("say into whom a patient was merged"):
            return survivor_of(self.connection, patient, authorities)

    def standing(self, patient: Identifier, project: str, survivor: Patient | None, authorities: Authorities) -> Standing:
        """Whether objects of a patient may leave for a project. Raises `TryAgain`."""
        with asking("say who opted out"):
            return standing(self.connection, patient, project, survivor, authorities)

    def studies_made_here(self, study_instance_uids: Sequence[str]) -> Collection[str]:
        """Those of these studies that have a UID under which objects left de-identified. Raises `TryAgain`."""
        with asking("say what left de-identified"):
            return studies_made_here(self.connection, study_instance_uids)

    def name(self, study_instance_uid: str, ids: Sequence[Identifier]) -> None:
        """Nothing is noted of what does not leave."""

    def keep(self, sealed: Sequence[Sealed]) -> None:
        """Nothing is kept of what does not leave."""


class Rehearsal:
    """Objects on a way out that leads nowhere. For one thread."""

    def __init__(
        self,
        settings: Settings,
        store: ObjectStore,
        ledger: Ledger,
        *,
        consent: bool = False,
        again: bool = False,
        character_sets: tuple[str, ...] = (),
    ) -> None:
        """With `consent` only objects of patients would leave who consented, with `again` also what was made of what left de-identified;
        `character_sets` are the destination's.
        """
        self._store, self._ledger, self._consent, self._again = store, ledger, consent, again
        self._coercions = Coercions.of_settings(settings, character_sets=character_sets)

    def edited(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """The deliveries with what their orders set right. Raises `TryAgain`."""
        if not self._coercions.any:
            return list(deliveries)
        with asking("say which orders the studies have"):
            return self._coercions.of(self._ledger.connection, deliveries)

    def going(self, deliveries: Sequence[Delivery], anonymizer: Anonymizer) -> list[Delivery]:
        """The deliveries, edited or not, to go out de-identified."""
        return Cleans(anonymizer, consent=self._consent, again=self._again).of(deliveries, self._ledger)

    def leaving(self, going: Delivery) -> Stays | Part10:
        """The object as it would leave, made; or why it would stay. Raises `TryAgain`, `Misconfigured`."""
        part10 = part10_of(self._store, going)
        return stays if (stays := why(part10)) is not None else part10

    @contextmanager
    def original(self, going: Delivery) -> Iterator[tuple[bytes | mmap, bytes | None, SurvivorOf | None]]:
        """The object before the policy, edited; as it is stored if that is another one; and who knows of merges. For a person to see."""
        assert going.cleaning is not None
        original = going.cleaning.original
        with part10_of(self._store, original).mapped() as (whole, _):
            stored = Part10(self._store, original.object).file() if original.edits is not None else None
            yield whole, stored, going.cleaning.survivor_of


def why(part10: Part10) -> Stays | None:
    """Why the object that is made when it is asked for cannot be; None if it was. Raises `TryAgain`, `Misconfigured`."""
    try:
        with part10.mapped():
            return None
    except NotAnonymized as error:
        return Stays(reason=error.reason, says=error.sentence, fix=error.fix, place=error.place)
    except NotEditable as error:
        return Stays(reason="not-editable", says=error.sentence, fix=error.fix)
    except Missing as error:
        return Stays(reason="object-missing", says=error.sentence, fix=error.fix)
    except Unsound as error:
        return Stays(reason="object-unsound", says=error.sentence, fix=error.fix)
