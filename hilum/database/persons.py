"""Who a patient is, after merges, and whether the patient's objects may leave de-identified: asked when they are about to.

SQL finds every identifier that may be meant, however it is written (`loose_id`); `hilum.identity` says which is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import psycopg
from msgspec import Struct

from hilum.database import AWAY, away, connect
from hilum.database.projects import FORMER
from hilum.identity import Authorities, is_nobodys, value_of
from hilum.order_events import Identifier, Patient


class Standing(Struct, frozen=True, kw_only=True):
    """Whether objects of a patient may leave for a project."""

    opted_out: bool
    consented: bool
    #: The former project of a policy of this one, if it is by an opt-out of that alone that nothing may leave.
    former: str = ""
    #: No opt-out names the identifier, which stands for nobody: the object is held if that is its PatientID, not if it has it besides.
    unnamed: bool = False


class OptOut(Struct, frozen=True, kw_only=True):
    """A line of the list of who opted out, as it is there. It names the patient: for who keeps the list."""

    value: str
    issuer: str
    #: Empty: of all projects.
    project: str


_SURVIVORS = """
    SELECT known.value, known.issuer, known.universal_id, former.merged_into IS NOT NULL, survivor.patient_key, survivor.detail
    FROM patient_id AS known JOIN patient AS former USING (patient_key)
        JOIN patient AS survivor ON survivor.patient_key = coalesce(former.merged_into, former.patient_key)
    WHERE loose_id(known.value) = loose_id(%(value)s)
"""
#: Who was merged with whoever has such a value, and has others merged into them.
_VIA = """
    SELECT DISTINCT via.detail FROM patient_id AS known JOIN patient AS whose USING (patient_key)
        JOIN patient AS via ON via.patient_key = coalesce(whose.merged_into, whose.patient_key)
            OR via.merged_into = coalesce(whose.merged_into, whose.patient_key)
    WHERE loose_id(known.value) = loose_id(%(value)s) AND via.detail ? 'former_ids'
"""
#: All whom merges make one with who has one of these identifiers. `certain` are these themselves; `by` is the identifier of whoever was
#: merged, and `n` which of these was taken for it.
_SAME = """
    WITH asked AS (SELECT * FROM json_to_recordset(%(ids)s::json) AS asked(n int, value text, issuer text, universal_id text)),
    same AS (
        SELECT value, issuer, universal_id, true AS certain, n, value AS by_value, issuer AS by_issuer, universal_id AS by_universal_id
        FROM asked
        UNION ALL
        SELECT DISTINCT same_id.value, same_id.issuer, same_id.universal_id, false, n,
            asked_id.value, asked_id.issuer, asked_id.universal_id
        FROM asked JOIN patient_id AS asked_id ON loose_id(asked_id.value) = loose_id(asked.value)
        JOIN patient AS whose ON whose.patient_key = asked_id.patient_key
        JOIN patient AS same ON same.patient_key = coalesce(whose.merged_into, whose.patient_key)
            OR same.merged_into = coalesce(whose.merged_into, whose.patient_key)
        JOIN patient_id AS same_id ON same_id.patient_key = same.patient_key
        WHERE same.merged_into IS NOT NULL OR whose.merged_into IS NOT NULL)
"""
_CHOICES = f"""
    {_SAME}
    SELECT same.value, same.issuer, same.universal_id, same.certain, c.kind, c.value, c.issuer,
        CASE WHEN c.project IN ('', %(project)s) THEN '' ELSE c.project END, c.project, n, by_value, by_issuer, by_universal_id
    FROM same JOIN patient_choice AS c ON loose_id(c.value) = loose_id(same.value)
    WHERE c.ended_at IS NULL AND (c.project IN ('', %(project)s) OR c.kind = 'opt-out' AND c.project IN ({FORMER}))
"""  # constants
_ANY_OPT_OUT = f"""
    SELECT CASE WHEN project IN ('', %(project)s) THEN '' ELSE project END AS former FROM patient_choice
    WHERE kind = 'opt-out' AND ended_at IS NULL AND (project IN ('', %(project)s) OR project IN ({FORMER}))
    ORDER BY former LIMIT 1
"""  # constants


def survivor_of(connection: psycopg.Connection[Any], patient: Identifier, authorities: Authorities) -> Patient | None:
    """Into whom the patient with this identifier was merged; None if into nobody.

    To take two patients for one would be worse than the reverse: an identifier of one authority is none of another, or of nobody that is
    named. One that names no authority, where there is no default either, is that of the one patient who has it; of several, nobody's.
    Who stands for nobody (`UNKNOWN`) was merged into nobody, whatever a message says; who was merged into such a one, and through it into
    another, into that one. Raises one of `AWAY`.
    """
    value = value_of(patient)
    if is_nobodys(patient):
        return None
    found: dict[str, Any] = {}
    merged, asked = False, authorities.assigned(patient)
    for known_value, issuer, universal_id, is_merged, key, detail in connection.execute(_SURVIVORS, {"value": value}):
        known = Identifier(value=known_value, issuer=issuer, universal_id=universal_id)
        if value_of(known) == value and (not authorities.of(asked) or authorities.is_one(known, asked)):
            found[key] = detail
            merged = merged or is_merged
    if not merged or len(found) != 1:
        return None
    return merged_by_nobody(connection, patient) or msgspec.convert(next(iter(found.values())), Patient)


def merged_by_nobody(connection: psycopg.Connection[Any], patient: Identifier) -> Patient | None:
    """Who stands for nobody and had somebody of this value merged into them, whoever assigned it. Raises one of `AWAY`."""
    value, found = value_of(patient), _nobodies(connection, patient)
    return next((each for each in found if any(value_of(former) == value for former in each.former_ids)), None)


def _nobodies(connection: psycopg.Connection[Any], patient: Identifier) -> list[Patient]:
    """Who stands for nobody, and has others merged into them, of all whom merges make one with whoever may have this value.

    Whom merges make one through these are not one.
    """
    found = [msgspec.convert(detail, Patient) for (detail,) in connection.execute(_VIA, {"value": value_of(patient)})]
    return [each for each in found if is_nobodys(_first(each))]


def _first(patient: Patient) -> Identifier:
    """By what a patient is known; an empty one of who has none."""
    return patient.ids[0] if patient.ids else Identifier(value="")


def standing(
    connection: psycopg.Connection[Any], patient: Identifier, project: str, survivor: Patient | None, authorities: Authorities
) -> Standing:
    """Of the patient with this identifier, who was merged into `survivor`. Raises one of `AWAY`.

    An opt-out counts in doubt: under any identifier of whoever may be the same person, whoever assigned it if one of both does not say,
    and however it is written; one of a former project until somebody decides (`projects`). A consent counts without doubt only. Without a
    PatientID, or by one that stands for nobody, nobody can tell who it is: then it counts as opted out as soon as anybody has.
    """
    ids = [patient, *(survivor.ids if survivor is not None else ())]
    opted_out_of, consented = set[str](), False
    found = connection.execute(_CHOICES, {"project": project, "ids": _json(ids)})
    merged_into_nobody = survivor is not None and is_nobodys(_first(survivor))
    for value, issuer, universal_id, certain, kind, said, by, former, _, n, *_ in found:
        same = Identifier(value=value, issuer=issuer, universal_id=universal_id)
        chosen = Identifier(value=said, issuer=by)
        if kind == "opt-out":
            opted_out_of |= {former} if authorities.may_be(same, chosen) else set()
        else:
            counts = certain and (n == 0 or not merged_into_nobody)
            consented = consented or (counts and authorities.is_one(same, chosen))
    unnamed = False
    if is_nobodys(patient):
        unnamed = bool(value_of(patient)) and not opted_out_of
        opted_out_of.update(former for (former,) in connection.execute(_ANY_OPT_OUT, {"project": project}))
    return Standing(opted_out=bool(opted_out_of), consented=consented, former=min(opted_out_of, default=""), unnamed=unnamed)


def opt_outs(
    connection: psycopg.Connection[Any], patient: Identifier, project: str, survivor: Patient | None, authorities: Authorities
) -> dict[OptOut, bool]:
    """By which lines of the list the patient with this identifier is held, and whether each surely means this patient.

    It surely does if both have one pseudonym, or the very identifiers of both were merged (`Authorities.is_same`), and the line is of this
    project and not of a former one about which nobody has decided. All else is doubt:
    enough to hold an object (`standing`), and too little to delete one. Nobody is surely meant by what stands for nobody, nor are those one
    who were merged through it. Without a PatientID nobody is meant. Raises one of `AWAY`.
    """
    if not value_of(patient):
        return {}
    told = dict[OptOut, bool]()
    through_nobody = bool(_nobodies(connection, patient))
    ids = [patient, *(survivor.ids if survivor is not None else ())]
    found = connection.execute(_CHOICES, {"project": project, "ids": _json(ids)})
    for value, issuer, universal_id, certain, kind, said, by, former, its, n, *whose in found:
        same, chosen = Identifier(value=value, issuer=issuer, universal_id=universal_id), Identifier(value=said, issuer=by)
        if kind == "opt-out" and authorities.may_be(same, chosen):
            merged = Identifier(value=whose[0], issuer=whose[1], universal_id=whose[2])
            line = OptOut(value=said, issuer=by, project=its)
            sure = not former and n == 0 and authorities.is_same(patient, merged) and authorities.is_same(same, chosen)
            told[line] = told.get(line, False) or (sure and (certain or not through_nobody))
    return told


_HERE = """
    WITH asked AS (SELECT * FROM json_to_recordset(%(ids)s::json) AS asked(n int, value text))
    SELECT n, known.issuer, known.universal_id FROM asked JOIN patient_id AS known ON loose_id(known.value) = loose_id(asked.value)
    UNION
    SELECT n, named.issuer, named.universal_id FROM asked JOIN named_id AS named ON loose_id(named.value) = loose_id(asked.value)
    UNION
    SELECT n, coalesce(study.issuer_of_patient_id, ''), '' FROM asked JOIN study ON loose_id(study.patient_id) = loose_id(asked.value)
"""


def unknown(dsn: str, patients: Sequence[Identifier], authorities: Authorities) -> int:
    """Of how many patients neither an object nor a message came, however they are written. Raises `TryAgain`."""
    asked = [{"n": n, "value": each.value} for n, each in enumerate(patients)]
    known = set()
    try:
        with connect(dsn, name="hilum choices") as connection:
            for n, issuer, universal_id in connection.execute(_HERE, {"ids": msgspec.json.encode(asked).decode()}):
                if authorities.may_be(patients[n], Identifier(value="", issuer=issuer, universal_id=universal_id)):
                    known.add(n)
    except AWAY as error:
        raise away(dsn, error) from None
    return len(patients) - len(known)


#: Of an identifier, its issuer and that of the issuer; an index takes no row of some kB.
MOST_CHARACTERS = 256
_NAMED = """
    INSERT INTO named_id (study_instance_uid, value, issuer, universal_id)
    SELECT %(study)s, value, issuer, universal_id FROM json_to_recordset(%(ids)s::json) AS named(value text, issuer text, universal_id text)
    ON CONFLICT DO NOTHING
"""


def name(connection: psycopg.Connection[Any], study_instance_uid: str, ids: Sequence[Identifier]) -> None:
    """Note whom objects of a study name beside PatientID. May be repeated. Raises one of `AWAY`.

    What is longer than any identifier is none (PS3.5 6.2: LO has 64 characters, UT of a UniversalEntityID is bounded here), and not noted.
    """
    noted = [each for each in ids if max(map(len, (each.value, each.issuer, each.universal_id))) <= MOST_CHARACTERS]
    connection.execute(_NAMED, {"study": study_instance_uid, "ids": _json(noted)})


def _json(ids: Sequence[Identifier]) -> str:
    said = [{"n": n, "value": each.value, "issuer": each.issuer, "universal_id": each.universal_id} for n, each in enumerate(ids)]
    return msgspec.json.encode(said).decode()
