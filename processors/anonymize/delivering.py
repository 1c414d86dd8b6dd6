"""De-identification as deliveries use it: a published policy, a key file, the engine, and the second look after it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from mmap import mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from hilum.anonymizing import Made, NotAnonymized, Sealed, SurvivorOf, deidentified_before
from hilum.deid_sections import Deid
from hilum.errors import Misconfigured, TryAgain
from hilum.identity import Authorities
from hilum.order_events import Identifier, Patient
from processors.anonymize.about import SERIES, SOP_INSTANCE, STUDY
from processors.anonymize.faces import Defacer
from processors.anonymize.held import Held
from processors.anonymize.identifiers import accession_number_of, identifiers_of
from processors.anonymize.identity import Subject, subject_of_patient
from processors.anonymize.keys import Key, ids_of, read_key
from processors.anonymize.options import Option
from processors.anonymize.outgoing import looked_at, outgoing, prepared
from processors.anonymize.policy import Policy, path_of, policy, policy_of_builtins
from processors.anonymize.pseudonyms import Pseudonyms, Shift
from processors.anonymize.result import Action, Anonymized, Context
from processors.anonymize.reverse import sealed, table_key
from processors.anonymize.risky import Kind, said_of
from processors.anonymize.stamp import keys_named
from processors.anonymize.tracing import traced
from processors.anonymize.verify import Hit, Scope, facts_of, facts_of_patient, second_look

if TYPE_CHECKING:
    from processors.anonymize.pictures import Pictures
    from processors.anonymize.risks import Risks

#: Places of hits that a sentence names.
_MOST_PLACES = 5


def table_of(name: str, folder: Path | None) -> dict[str, Any]:
    """The policy `name`, of the folder or shipped, as it is published: `version` and `policy`. Raises `Misconfigured`."""
    found = policy(name, folder)
    return {"version": found.version, "policy": _said(found)}


def _said(policy: Policy) -> dict[str, Any]:
    said: dict[str, Any] = msgspec.to_builtins(policy)
    del said["summary"]
    if not policy.reverse:
        del said["reverse"]  # so that an older release reads it
    return said


def policy_in(table: Mapping[str, Any]) -> Policy:
    """The policy that was published. Raises `Misconfigured` if this release makes other objects by it than the one that published it."""
    found = policy_of_builtins(table.get("policy"))
    if found.version != table.get("version"):
        raise Misconfigured(
            "policy-of-another-release",
            f"The policy {found.name} was published as version {table.get('version')} and is {found.version} for this release.",
            fix="Publish it again with this release: hilum apply",
        )
    return found


def patients_of(original: bytes | mmap) -> list[Identifier]:
    """Whom an object names: by PatientID with its issuer, and besides. Raises `NotAnonymized` if it cannot be read."""
    try:
        return identifiers_of(looked_at(original).patient())
    except Held as held:
        raise NotAnonymized(held.reason, f"{held.sentence} It was not sent.", fix=held.fix, place=held.place) from None


def check_machine(policy: Policy) -> None:
    """Raise `Misconfigured` if what the policy needs beside Hilum is not on this machine: then nothing could leave by it."""
    if policy.text is not None:
        from processors.anonymize import text  # which is slow to load

        text.check()


def scope_of(policy: Policy) -> Scope:
    """What the second look leaves out, since the policy keeps it."""
    kept = [path_of(name)[-1] for name, wish in policy.attributes.items() if wish == "keep"]
    return Scope.of(policy.options, kept, policy.name)


class Outgoing:
    """See `hilum.anonymizing.Anonymizer`."""

    def __init__(
        self,
        policy: Policy,
        key: Key,
        shift: Shift = Shift(),  # noqa: B008  # frozen
        authorities: Authorities = Authorities(),  # noqa: B008  # frozen
        defacer: Defacer | None = None,
        reverse: Key | None = None,
        *,
        makes: Callable[..., Anonymized] = outgoing,
        looks: Callable[..., Sequence[Hit]] = second_look,
    ) -> None:
        """With `reverse`, the key of the table that leads back, each object comes with its rows.

        `makes` and `looks` are called as `outgoing` and `second_look` are.
        """
        self.policy = policy.name
        self.version = policy.version
        self.domain = policy.domain
        self.said = _said(policy)
        self.may_change_syntax = bool(policy.masks) or policy.text is not None or defacer is not None
        self.key_id = key.id
        self.settings_id = Deid(
            earliest_days=shift.earliest,
            latest_days=shift.latest,
            default_issuer=authorities.default,
            same_issuers=dict(authorities.same),
        ).settings_id
        self.authorities = authorities
        self._policy, self._defacer = policy, defacer
        self._pseudonyms = Pseudonyms(key, policy.domain, shift)
        #: What the second look leaves out.
        self.scope = scope_of(policy)
        self._keeps_uids = Option.RETAIN_UIDS in policy.chosen
        self._reverse = reverse
        self._makes, self._looks = makes, looks
        #: Ids of keys: what says that it was de-identified by one of them is held.
        self._own_keys: frozenset[str] = frozenset()
        self._again: tuple[Mapping[str, Any], Deid, tuple[int, ...], bool, bool] | None = None

    @classmethod
    def of(cls, table: Mapping[str, Any], deid: Deid, *, delivers: bool = False, again: bool = False) -> Outgoing:
        """By a policy as it was published, with the key of the settings. Raises `Misconfigured`.

        Where it `delivers`, and the policy asks for the way back, the key of that must be there, too; nobody else keeps rows. Nor does what
        was de-identified by this key, or a former one beside it, leave once more, unless `again` says so.
        """
        policy = policy_in(table)
        check_machine(policy)
        file = deid.key_file
        if file is None:
            raise Misconfigured(
                "key-not-named",
                f"The policy {policy.name} needs a key for its pseudonyms, and `deid.key_path` names no file.",
                fix="Give --key FILE, or set `deid.key_path` in the settings; `hilum deid keys make --key FILE` makes the first one.",
            )
        seen = *_seen(file), *(_seen(deid.reverse_key_file) if delivers and deid.reverse_key_file else ())
        key = read_key(file, deid.key_id)
        try:
            shift = Shift(deid.earliest_days, deid.latest_days)
        except ValueError as error:
            raise Misconfigured("setting-invalid", f"deid: {error}.", fix="Correct earliest_days and latest_days.") from None
        defacer = Defacer(command=deid.defacer, timeout_s=deid.defacer_timeout_s) if deid.defacer else None
        reverse = table_key(deid) if delivers and policy.reverse else None
        if reverse is not None and reverse.id == key.id:
            raise Misconfigured("reverse-key-same", "The key of the way back is that of the pseudonyms.", fix="Make another one for it.")
        made = cls(policy, key, shift, Authorities(default=deid.default_issuer, same=deid.same_issuers), defacer, reverse)
        made._own_keys = ids_of(file, key) if delivers and not again else frozenset()
        made._again = (table, deid, seen, delivers, again)
        return made

    def current(self) -> Outgoing:
        """See `Anonymizer.current`."""
        if self._again is None:
            return self
        table, deid, seen, delivers, again = self._again
        assert deid.key_file is not None
        now = *_seen(deid.key_file), *(_seen(deid.reverse_key_file) if delivers and deid.reverse_key_file else ())
        return self if seen and now == seen else Outgoing.of(table, deid, delivers=delivers, again=again)

    def check(self) -> None:
        """See `Anonymizer.check`: what takes faces out of heads; `of` asks for what looks for text."""
        if said_of(Kind.HEAD_VOLUME, self._policy.kinds) == "deface":
            _check_defacer(self._defacer, self.policy)

    def uid(self, uid: str) -> str:
        """See `Anonymizer.uid`."""
        return uid if self._keeps_uids else self._pseudonyms.uid(uid)

    def made(self, original: bytes | mmap, *, unedited: bytes | mmap | None = None, survivor_of: SurvivorOf | None = None) -> Made:
        """See `Anonymizer.made`."""
        try:
            return self._made(original, unedited, survivor_of)
        except (Misconfigured, NotAnonymized, TryAgain):
            raise
        except Held as held:
            raise NotAnonymized(held.reason, f"{held.sentence} It was not sent.", fix=held.fix, place=held.place) from None
        except Exception as error:
            raise _unforeseen(error) from None

    def traced(
        self, original: bytes | mmap, *, unedited: bytes | mmap | None = None, survivor_of: SurvivorOf | None = None
    ) -> tuple[list[Action], NotAnonymized | None]:
        """What becomes of each element, and why the object would not leave, if it would not. For a person to see, never for a log.

        Arguments are those of `made`; raises `TryAgain` and `Misconfigured` as that does.
        """
        actions: list[Action] = []
        try:
            context = self._context(self._survivor(original, unedited, survivor_of))
            actions = traced(prepared(original, self._policy, defacer=self._defacer), context)
            self.made(original, unedited=unedited, survivor_of=survivor_of)
        except Held as held:
            return actions, NotAnonymized(held.reason, held.sentence, fix=held.fix, place=held.place)
        except NotAnonymized as error:
            return actions, error
        except (Misconfigured, TryAgain):
            raise
        except Exception as error:
            return actions, _unforeseen(error)
        return actions, None

    def risks(self, original: bytes | mmap) -> Risks:
        """See `processors.anonymize.risks.risks_of`. For a person to see."""
        from processors.anonymize.risks import risks_of  # of no use where objects leave

        return risks_of(original, self._policy)

    def pictures(self, original: bytes | mmap, frame: int) -> Pictures | None:
        """See `processors.anonymize.pictures.pictures`. For a person to see."""
        from processors.anonymize.pictures import pictures  # what draws is of no use where objects leave

        return pictures(original, self._policy, frame=frame, defacer=self._defacer)

    def _made(self, original: bytes | mmap, unedited: bytes | mmap | None, survivor_of: SurvivorOf | None) -> Made:
        survivor = self._survivor(original, unedited, survivor_of)
        made = self._makes(original, self._context(survivor), defacer=self._defacer)
        also = [*(facts_of(unedited, self.scope) if unedited is not None else ()), *(facts_of_patient(survivor) if survivor else ())]
        if hits := self._looks(original, made.parts, self.scope, also):
            places = ", ".join(f"{hit.kind} at {hit.place}" for hit in hits[:_MOST_PLACES])
            more = f" and {len(hits) - _MOST_PLACES} more" if len(hits) > _MOST_PLACES else ""
            raise NotAnonymized(
                "second-look",
                f"The second look found something of the original in what the policy {self.policy} made: {places}{more}. It was not sent.",
                fix="Have the policy remove these attributes, see `hilum deid preview`, then retry the delivery.",
                place=hits[0].place,
            )
        return Made(
            parts=made.parts,
            sop_instance_uid=made.sop_instance_uid,
            study_instance_uid=made.study_instance_uid,
            series_instance_uid=made.series_instance_uid,
            patient=made.patient,
            reverse=self._back(original, survivor, made) if self._reverse is not None else (),
            stated=made.stated,
        )

    def _back(self, original: bytes | mmap, survivor: Patient | None, made: Anonymized) -> tuple[Sealed, ...]:
        """The rows that lead back from what was made."""
        assert self._reverse is not None
        seen = looked_at(original)
        header = seen.patient()
        named = identifiers_of(header)[0]
        patient = named.value, named.issuer
        if survivor is not None and survivor.ids:
            patient = survivor.ids[0].value, survivor.ids[0].issuer or survivor.ids[0].universal_id
        accession = accession_number_of(header)
        others = {
            self._pseudonyms.accession_number(accession): ("accession", accession),
            made.study_instance_uid: ("uid", seen.uid(STUDY)),
            made.series_instance_uid: ("uid", seen.uid(SERIES)),
            made.sop_instance_uid: ("uid", seen.uid(SOP_INSTANCE)),
        }
        return sealed(self._reverse, self.domain, (made.patient, *patient), others)

    def _survivor(self, original: bytes | mmap, unedited: bytes | mmap | None, survivor_of: SurvivorOf | None) -> Patient | None:
        if survivor_of is None:
            return None
        seen = looked_at(original)
        if keys_named(seen) & self._own_keys:
            raise deidentified_before()
        ids = identifiers_of(seen.patient())
        if unedited is not None:  # who opted out under the identifier with which it came did opt out
            ids += [each for each in identifiers_of(looked_at(unedited).patient()) if each.value]
        return survivor_of(list(dict.fromkeys(ids)))

    def _context(self, survivor: Patient | None) -> Context:
        return Context(policy=self._policy, pseudonyms=self._pseudonyms, subject=self._subject(survivor), authorities=self.authorities)

    def _subject(self, survivor: Patient | None) -> Subject | None:
        if survivor is None:
            return None
        subject = subject_of_patient(survivor, self.authorities)
        if subject is None:
            raise NotAnonymized(
                "patient-unknown",
                "Its patient was merged into one without identifier, or whose stands for nobody. It was not sent.",
                fix="Correct the merge, then retry the delivery.",
            )
        return subject


def _unforeseen(error: Exception) -> NotAnonymized:
    """What an exception says may be of the object: its type alone is told."""
    return NotAnonymized(
        "anonymizer-failed",
        f"It could not be de-identified in a way nobody foresaw ({type(error).__name__}). It was not sent.",
        fix="Leave such objects out of what goes to this destination, and report it.",
    )


def _check_defacer(defacer: Defacer | None, policy: str) -> None:
    program = defacer.command[0] if defacer is not None else ""
    if shutil.which(program) is None:
        raise Misconfigured(
            "defacer-missing",
            f"The policy {policy} has heads defaced, and "
            + (f"{program} is no program that can be run here." if program else "`deid.defacer` names no program."),
            fix="Install it on every machine that delivers, and name it in the settings file: docs/operations/pixels.md.",
        )


def _seen(file: Path) -> tuple[int, ...]:
    """By what it is noticed that a key file is another one, or its rights are."""
    try:
        status = file.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_mode
