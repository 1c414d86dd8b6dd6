"""What was entered to leave de-identified, and whose destination has no policy any more: it waits until somebody decides about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from hilum.anonymizing import NotAnonymized, package
from hilum.database.persons import Standing
from hilum.database.under_policy import projects
from hilum.identity import Authorities
from hilum.order_events import Identifier, Patient
from hilum.part10 import Part10
from hilum.runtime.delivery.choices import refuse_opted_out
from hilum.settings import Settings
from hilum.sink import Delivery
from hilum.store import ObjectStore


class Knows(Protocol):
    """Who knows of patients: the ledger."""

    def survivor(self, patient: Identifier, authorities: Authorities) -> Patient | None:
        """Into whom the patient was merged; None if into nobody. Raises `TryAgain`."""

    def standing(self, patient: Identifier, project: str, survivor: Patient | None, authorities: Authorities) -> Standing:
        """Whether objects of the patient may leave for a project. Raises `TryAgain`."""


def refuse_identified(delivery: Delivery, part10: Part10, store: ObjectStore, knows: Knows, settings: Settings) -> None:
    """Raise `NotAnonymized` for what was to leave de-identified, and would leave as it is, unless somebody decided that it does.

    Nor does it then, if the patient opted out of the policy's project: as the object came, or as its order has set it right. Raises what
    `part10` raises, `TryAgain`, and `Misconfigured` without the package that reads who the patient is.
    """
    if delivery.cleaning is not None or not delivery.under_policy:
        return
    if not delivery.identified:
        raise NotAnonymized(
            "policy-removed",
            f"It was to leave by the policy {delivery.under_policy}, and its destination has no policy any more. It was not sent.",
            fix="Give the destination its policy again, and retry the delivery; or cancel it. If it is to leave as it is, with names: "
            "hilum deliver retry --identified --why",
        )
    authorities = Authorities(default=settings.deid.default_issuer, same=settings.deid.same_issuers)
    named = set(_named(delivery, part10, store))
    for project in projects(settings.postgres.dsn, delivery.under_policy):
        standings = [
            (knows.standing(each, project, knows.survivor(each, authorities), authorities), is_besides) for each, is_besides in named
        ]
        refuse_opted_out(project, [stands for stands, is_besides in standings if not (is_besides and stands.unnamed)])


def _named(delivery: Delivery, part10: Part10, store: ObjectStore) -> Iterator[tuple[Identifier, bool]]:
    """Whom an object names, as it would leave and as it came, and whether that is beside its PatientID."""
    for each in [part10] if delivery.edits is None else [part10, Part10(store, delivery.object)]:
        with each.mapped() as (whole, _):
            found: Sequence[Identifier] = package().patients_of(whole)
            yield from ((each, n > 0) for n, each in enumerate(found))
