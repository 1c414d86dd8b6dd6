"""What a destination with a policy gets: deliveries that go out de-identified, under other UIDs, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache
from typing import Protocol

from msgspec.structs import replace

from hilum.anonymizing import Anonymizer, Cleaning, Deidentified, NotAnonymized, Sealed, SurvivorOf, anonymizer_of, deidentified_before
from hilum.database.let_out import Door
from hilum.database.persons import Standing
from hilum.dicom.lossy import may_be_made
from hilum.errors import Misconfigured
from hilum.identity import Authorities
from hilum.loosened import LetsOut, applied
from hilum.order_events import Identifier, Patient
from hilum.part10 import Part10
from hilum.runtime.delivery.choices import refuse_opted_out
from hilum.runtime.delivery.outcomes import PutOff
from hilum.settings import Settings
from hilum.sink import Delivery, NotYet, Settled, Sink, Step, Waits, step


class Patients(Protocol):
    """Who knows of patients: the ledger."""

    def survivor(self, patient: Identifier, authorities: Authorities) -> Patient | None:
        """Into whom the patient was merged; None if into nobody. Raises `TryAgain`."""

    def standing(self, patient: Identifier, project: str, survivor: Patient | None, authorities: Authorities) -> Standing:
        """Whether objects of the patient may leave for a project. Raises `TryAgain`."""

    def studies_made_here(self, study_instance_uids: Sequence[str]) -> Collection[str]:
        """Those of these studies that have a UID under which objects left de-identified. Raises `TryAgain`."""

    def name(self, study_instance_uid: str, ids: Sequence[Identifier]) -> None:
        """Note whom an object of a study names beside PatientID, so that it is found when it is to be taken back. Raises `TryAgain`."""

    def keep(self, sealed: Sequence[Sealed]) -> None:
        """Keep what leads back from pseudonyms. Raises `TryAgain`."""


class Cleans:
    """The policy and key of one destination, for one thread."""

    def __init__(self, anonymizer: Anonymizer, *, consent: bool = False, again: bool = False) -> None:
        """With `consent` only objects of patients leave who consented; with `again` also what was made of what left de-identified."""
        self._anonymizer = anonymizer
        self._consent, self._again = consent, again

    @property
    def key_id(self) -> str:
        """The id of the key in force."""
        return self._anonymizer.key_id

    @property
    def lets_out(self) -> LetsOut:
        """What decides how much leaves."""
        return LetsOut(policy=self._anonymizer.policy, said=self._anonymizer.said, consent=self._consent, again=self._again)

    def renew(self) -> None:
        """Go on with the key that is in force now. Raises `Misconfigured` if its file is gone, or others may read it."""
        self._anonymizer = self._anonymizer.current()

    def of(self, deliveries: Sequence[Delivery], patients: Patients) -> list[Delivery]:
        """The same deliveries, to go out de-identified. `patients` is asked once for each patient."""
        authorities, project = self._anonymizer.authorities, self._anonymizer.domain
        maybe = sorted({uid for each in deliveries if may_be_made(uid := each.origin.study_instance_uid)})
        of_ours = patients.studies_made_here(maybe) if maybe and not self._again else ()

        @cache
        def once(patient: Identifier) -> tuple[Patient | None, Standing]:
            survivor = patients.survivor(patient, authorities)
            return survivor, patients.standing(patient, project, survivor, authorities)

        @cache
        def named(study_instance_uid: str, ids: tuple[Identifier, ...]) -> None:
            patients.name(study_instance_uid, ids)

        def survivor_in(study_instance_uid: str) -> SurvivorOf:
            def survivor_of(ids: Sequence[Identifier]) -> Patient | None:
                if study_instance_uid in of_ours:
                    raise deidentified_before()
                survivor, standing = once(ids[0])
                self._refuse(standing, [stands for each in ids[1:] if not (stands := once(each)[1]).unnamed])
                # The index has no universal id: without this one, PatientID would be of who assigned those that do not say.
                if besides := (*(ids[:1] if ids[0].universal_id and not ids[0].issuer else ()), *ids[1:]):
                    named(study_instance_uid, besides)
                return survivor

            return survivor_of

        return [self._of(each, survivor_in(each.origin.study_instance_uid), patients) for each in deliveries]

    def _refuse(self, standing: Standing, others: Sequence[Standing]) -> None:
        project = self._anonymizer.domain
        refuse_opted_out(project, [standing, *others])
        if self._consent and not standing.consented:
            raise NotAnonymized(
                "no-consent",
                f"Its patient has not consented to {project}. It was not sent.",
                fix="Cancel the delivery, or add the consent of this very identifier, and retry: "
                f"hilum deid patients add --consent --project {project}",
            )

    def _of(self, delivery: Delivery, survivor_of: SurvivorOf, patients: Patients) -> Delivery:
        uid = self._anonymizer.uid
        return replace(
            delivery,
            study_instance_uid=uid(delivery.study_instance_uid),
            series_instance_uid=uid(delivery.series_instance_uid),
            sop_instance_uid=uid(delivery.sop_instance_uid),
            cleaning=Cleaning(
                anonymizer=self._anonymizer, original=delivery, survivor_of=survivor_of, keep=lambda sealed: patients.keep(sealed)
            ),
        )


def cleans_of(name: str, sink: Sink, settings: Settings) -> Cleans | None:
    """By what the destination's objects are de-identified; None if they go as they are. Raises `Misconfigured`."""
    if not sink.policy:
        return None
    return Cleans(anonymizer_of(name, sink.policy, settings), consent=sink.patients == "consent", again=sink.deidentified == "again")


def door_of(name: str, sink: Sink, cleans: Cleans | None, settings: Settings) -> Door:
    """What is held against what was accepted; not of destinations that were published, about which `hilum apply` asked."""
    members = [each for each in getattr(sink, "members", ()) if each not in applied(settings)]  # of a group
    return Door(cleans.lets_out if cleans else LetsOut(), name, members, published=name in applied(settings))


def try_policy(name: str, sink: Sink, settings: Settings) -> Iterator[Step]:
    """The first step of a destination's check: its policy, its key, and what the policy needs on this machine. None without a policy."""
    if not sink.policy:
        return
    with step("policy") as trying:
        anonymizer = anonymizer_of(name, sink.policy, settings)
        anonymizer.check()
        trying.says = f"{anonymizer.policy} {anonymizer.version} with key {anonymizer.key_id}"
    yield trying.done


def refuse_uncleaned(sink: Sink, delivery: Delivery) -> None:
    """The last door: raise `Misconfigured` for an object that would leave as it is where a policy is set."""
    if sink.policy and (delivery.cleaning is None or delivery.cleaning.anonymizer.policy != sink.policy):
        raise Misconfigured("not-deidentified", "An object was about to leave that is not de-identified.", fix="Report it.")


def as_made(delivery: Delivery, part10: Part10) -> Delivery:
    """Make an object that goes out de-identified, before anything of it is said to the destination; its transfer syntax is known then.

    Raises `NotAnonymized` and whatever else `part10` raises.
    """
    if delivery.cleaning is None:
        return delivery
    with part10.mapped():
        return replace(delivery, transfer_syntax_uid=delivery.cleaning.transfer_syntax_uid)


def with_what_left(settled: Settled, delivery: Delivery, noted: Callable[[str], Deidentified | None]) -> Settled:
    """The outcome, with what left of an object that goes out de-identified.

    If nothing was made now, since the destination had it and has said its last word: as `noted` then, whatever the policy is by now.
    """
    left = _what_left(delivery, settled.sent_as)
    if left is None:
        return settled
    if not left.sha256 and settled.state == "delivered" and (then := noted(delivery.delivery_id)) is not None:
        said = f"De-identified by {then.policy} {then.policy_version}."
        settled, left = replace(settled, comment=f"{settled.comment} {said}".lstrip()), then
    return replace(settled, sent_as=left.sop_instance_uid, deidentified=left)


def waiting(waits: Waits, delivery: Delivery) -> PutOff:
    """An attempt after which the destination has the object, with what was made of it for that, or was not asked."""
    made = delivery.cleaning is not None and delivery.cleaning.sha256
    return PutOff(
        after_s=waits.after_s,
        counted=False,
        asked=not isinstance(waits, NotYet),
        comment=waits.sentence,
        deidentified=_what_left(delivery) if made else None,
    )


def _what_left(delivery: Delivery, sent_as: str = "") -> Deidentified | None:
    """What was made of an object that goes out de-identified; None if it goes as it is."""
    cleaning = delivery.cleaning
    if cleaning is None:
        return None
    return Deidentified(
        policy=cleaning.anonymizer.policy,
        policy_version=cleaning.anonymizer.version,
        key_id=cleaning.anonymizer.key_id,
        study_instance_uid=delivery.study_instance_uid,
        series_instance_uid=delivery.series_instance_uid,
        sop_instance_uid=sent_as or delivery.sop_instance_uid,
        sha256=cleaning.sha256,
        project=cleaning.anonymizer.domain,
        settings_id=cleaning.anonymizer.settings_id,
        patient=cleaning.patient,
    )
