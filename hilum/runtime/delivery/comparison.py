"""What is different between what left by a policy and what leaves by it now: each object is made both ways, and nothing leaves.

What left is made once more, by the policy's version and the key of that time, and held against the digest that the ledger has of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from hilum.anonymizing import Anonymizer, package
from hilum.database.deid_settings import listed
from hilum.database.past import Before, kept_policy, left_by
from hilum.database.persons import Standing
from hilum.errors import Misconfigured
from hilum.identity import Authorities
from hilum.order_events import Identifier, Patient
from hilum.part10 import Part10
from hilum.runtime.delivery.rehearsal import Ledger, Rehearsal, Stays
from hilum.settings import Settings
from hilum.store import ObjectStore


class Compared(Struct, frozen=True, kw_only=True):
    """One object, before and now. Attributes are keywords; no value of it is in this."""

    #: Of the original.
    study_instance_uid: str
    sop_instance_uid: str
    #: Where it was, by which version and key.
    destination: str
    policy_version: str
    key_id: str
    before: Literal["left", "held"]
    now: Literal["leaves", "held"]
    #: Why it is held now: a code, a path of tags, a sentence, and what to do.
    reason: str = ""
    place: str = ""
    says: str = ""
    fix: str = ""
    #: Attributes that did not leave and do now; that left and do not now; that leave with another value.
    stays: tuple[str, ...] = ()
    goes: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()
    #: Why nobody can tell what left, as a code; empty if it was made once more. `changed-since`: it was, and has another digest than what
    #: left, since its order, its patient or its original changed; what is told is what the policies do with it as it is now.
    unsure: Literal["", "policy-not-kept", "policy-of-another-release", "key-missing", "not-made-again", "unreadable", "changed-since"] = ""


class Attribute(Struct, frozen=True, kw_only=True):
    """Of how many objects an attribute changes."""

    keyword: str
    stays: int
    goes: int
    differs: int


class _Anybody(Ledger):
    """Whoever's objects left before: who opted out since is no difference of the policy."""

    def standing(self, patient: Identifier, project: str, survivor: Patient | None, authorities: Authorities) -> Standing:
        """See `Ledger.standing`."""
        del patient, project, survivor, authorities
        return Standing(opted_out=False, consented=True)


class Comparison:
    """Compares the past of one policy with what it does now."""

    def __init__(
        self,
        settings: Settings,
        store: ObjectStore,
        now: Anonymizer,
        *,
        consent: bool = False,
        again: bool = False,
        character_sets: tuple[str, ...] = (),
    ) -> None:
        """With `consent` only objects of patients leave now who consented, with `again` also what was made of what left de-identified;
        `character_sets` are those of the destination.
        """
        self._settings, self._store, self._now = settings, store, now
        self._consent, self._again, self._character_sets = consent, again, character_sets
        self._before: dict[tuple[str, str, str], Anonymizer | str] = {}
        self._difference: Callable[[Any, Any], Any] = package("processors.anonymize.difference").difference

    def of(self, *, of: str, to: str, since: datetime | None) -> Iterator[Compared]:
        """Each object that left by the policy, or was held, for `of` or, if that is empty, any other destination than `to`.

        One at a time, whatever their number. Raises `TryAgain`, `Misconfigured`.
        """
        dsn = self._settings.postgres.dsn
        asked, anybody = Ledger(dsn), _Anybody(dsn)
        with asked.connection, anybody.connection:
            rehearsal = Rehearsal(
                self._settings, self._store, asked, consent=self._consent, again=self._again, character_sets=self._character_sets
            )
            again = Rehearsal(self._settings, self._store, anybody, again=True)
            for befores in left_by(dsn, self._now.policy, of=of, to=to, since=since):
                edited = rehearsal.edited([each.delivery for each in befores])
                for before, delivery in zip(befores, edited, strict=True):
                    yield self._compared(replace(before, delivery=delivery), rehearsal, again)

    def _compared(self, before: Before, rehearsal: Rehearsal, again: Rehearsal) -> Compared:
        (going,) = rehearsal.going([before.delivery], self._now)
        now = rehearsal.leaving(going)
        found = Compared(
            study_instance_uid=before.delivery.study_instance_uid,
            sop_instance_uid=before.delivery.sop_instance_uid,
            destination=before.destination,
            policy_version=before.policy_version,
            key_id=before.key_id,
            before="left" if before.left else "held",
            now="held" if isinstance(now, Stays) else "leaves",
        )
        if isinstance(now, Stays):
            return replace(found, reason=now.reason, place=now.place, says=now.says, fix=now.fix)
        try:
            return self._with_difference(found, before, again, now) if before.left else found
        finally:
            now.forget()

    def _with_difference(self, found: Compared, before: Before, again: Rehearsal, now: Part10) -> Compared:
        anonymizer = self._anonymizer(before.policy_version, before.key_id, before.settings_id)
        if isinstance(anonymizer, str):
            return replace(found, unsure=anonymizer)
        (going,) = again.going([before.delivery], anonymizer)
        was = again.leaving(going)
        if isinstance(was, Stays):
            return replace(found, unsure="not-made-again")
        try:
            with was.mapped() as (first, _), now.mapped() as (second, _):
                told = self._difference(first, second)
        except ValueError:
            return replace(found, unsure="unreadable")
        finally:
            was.forget()
        unsure = "changed-since" if before.sent_sha256 and was.sha256 != before.sent_sha256 else ""
        return replace(found, stays=told.stays, goes=told.goes, differs=told.differs, unsure=unsure)

    def _anonymizer(self, version: str, key_id: str, settings_id: str) -> Anonymizer | str:
        """The policy's version with the key and the settings of that time, or why there is none, as a code."""
        known = self._before.get((version, key_id, settings_id))
        if known is None:
            known = self._before[version, key_id, settings_id] = self._anonymizer_of(version, key_id, settings_id)
        return known

    def _anonymizer_of(self, version: str, key_id: str, settings_id: str) -> Anonymizer | str:
        table = kept_policy(self._settings.postgres.dsn, version)
        if table is None:
            return "policy-not-kept"
        deid = replace(self._settings.deid, key_id=key_id)
        if settings_id:  # by those of today otherwise: an earlier release kept none
            deid = replace(deid, **next((each.said for each in listed(self._settings.postgres.dsn, key_id, settings_id)), {}))
        try:
            anonymizer: Anonymizer = package().Outgoing.of(table, deid)
        except Misconfigured as error:
            return "key-missing" if error.reason.startswith("key-") else "policy-of-another-release"
        return anonymizer


def attributes(found: Counter[tuple[str, str]]) -> list[Attribute]:
    """Counts by keyword and change (`stays`, `goes`, `differs`), those of most objects first."""
    keywords = {keyword for keyword, _ in found}
    made = [
        Attribute(keyword=each, stays=found[each, "stays"], goes=found[each, "goes"], differs=found[each, "differs"]) for each in keywords
    ]
    return sorted(made, key=lambda each: (-(each.stays + each.goes + each.differs), each.keyword))
