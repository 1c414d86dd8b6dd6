"""What a destination has of patients who opted out, or of whom no consent stands: what is to be taken back, and what may be.

An opt-out holds whatever may be the patient's. What is there is deleted by itself only if it surely is: who is merely like the patient
in the form of an identifier, or in one without its issuer, is another patient until a person says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, Literal

import msgspec
import psycopg
from msgspec import Struct

from hilum.database import AWAY, away, connect
from hilum.database.deidentified import MAY_BE_THERE, STATE, Output
from hilum.database.found import rows
from hilum.database.persons import OptOut, opt_outs, standing, survivor_of
from hilum.database.projects import FORMER
from hilum.identity import Authorities, value_of
from hilum.order_events import Identifier


class TakeBack(Struct, frozen=True, kw_only=True):
    """An object that is to be taken back, or may have to be. `by` names the patient: for who keeps the list."""

    output: Output
    #: `no-consent`: the destination asks for consent, and none stands.
    why: Literal["opt-out", "no-consent"]
    #: The lines of the list of opt-outs; if it is `sure`, those that surely mean the patient of this object.
    by: tuple[OptOut, ...]
    #: Whether it surely is the patient's. If not, only a person can tell.
    sure: bool


class _Ground(Struct, frozen=True, kw_only=True):
    why: Literal["opt-out", "no-consent"]
    by: tuple[OptOut, ...]
    sure: bool


#: Of what a destination has, or may have, of one project: the studies, and who their patients are by their images (`named`: by other
#: identifiers than PatientID) and by their orders. Without `all`, only of patients who may have opted out, however they are written;
#: `opt_outs` says whether they did.
_STUDIES = f"""
    WITH chosen AS (
        SELECT DISTINCT loose_id(value) AS id FROM patient_choice
        WHERE kind = 'opt-out' AND ended_at IS NULL AND (project IN ('', %(project)s) OR project IN ({FORMER}))),
    same AS (
        SELECT id FROM chosen
        UNION
        SELECT loose_id(same_id.value)
        FROM chosen JOIN patient_id AS asked_id ON loose_id(asked_id.value) = chosen.id
        JOIN patient AS whose ON whose.patient_key = asked_id.patient_key
        JOIN patient AS same ON same.patient_key = coalesce(whose.merged_into, whose.patient_key)
            OR same.merged_into = coalesce(whose.merged_into, whose.patient_key)
        JOIN patient_id AS same_id ON same_id.patient_key = same.patient_key),
    asked AS (
        SELECT study_instance_uid, coalesce(study.patient_id, '') AS value, coalesce(study.issuer_of_patient_id, '') AS issuer, ARRAY(
            SELECT DISTINCT scheduled_order.detail->'patient'->'ids'->0
            FROM match JOIN scheduled_order ON scheduled_order.order_id = ANY(match.order_ids)
            WHERE match.about = 'study' AND match.id = study.study_instance_uid AND scheduled_order.detail->'patient'->'ids'->0 IS NOT NULL
        ) AS ordered, ARRAY(
            SELECT jsonb_build_object('value', named.value, 'issuer', named.issuer, 'universal_id', named.universal_id)
            FROM named_id AS named WHERE named.study_instance_uid = study.study_instance_uid
        ) AS named
        FROM study WHERE study_instance_uid IN (
            SELECT study_instance_uid FROM deidentified AS known
            WHERE destination = %(destination)s AND project = ANY(%(left_for)s) AND {MAY_BE_THERE}))
    SELECT study_instance_uid, value, issuer, ordered, named FROM asked
    WHERE %(all)s OR loose_id(value) IN (SELECT id FROM same)
        OR EXISTS (SELECT FROM unnest(ordered || named) AS each WHERE loose_id(each->>'value') IN (SELECT id FROM same))
"""  # constants
_LEFT_FOR = f"SELECT DISTINCT project FROM deidentified AS known WHERE destination = %s AND {MAY_BE_THERE}"  # constants
_OF_STUDIES = f"""
    SELECT *, {STATE} FROM deidentified AS known
    WHERE destination = %(destination)s AND {MAY_BE_THERE} AND (study_instance_uid, project) IN (
        SELECT study, project FROM json_to_recordset(%(studies)s::json) AS said(study text, project text))
    ORDER BY begun_at, delivery_id
"""  # constants
_WITHDRAWN = f"""
    UPDATE deidentified AS known SET withdrawn_at = greatest(now(), begun_at)
    WHERE destination = %s AND sent_as = %s AND begun_at <= %s AND {MAY_BE_THERE}
"""  # constants
#: Of studies that left as several patients: whose objects each are, the images' PatientID does not tell.
_OF_SEVERAL = """
    SELECT known.study_instance_uid, known.project FROM deidentified AS known LEFT JOIN deid_link AS link
        ON link.project = known.project AND link.key_id = known.key_id AND link.prior = known.sent_patient AND link.ended_at IS NULL
    WHERE known.sent_patient IS NOT NULL AND (known.study_instance_uid, known.project) IN (
        SELECT study, project FROM json_to_recordset(%(studies)s::json) AS said(study text, project text))
    GROUP BY known.study_instance_uid, known.project, known.key_id HAVING count(DISTINCT coalesce(link.surviving, known.sent_patient)) > 1
"""


def to_take_back(dsn: str, destination: str, project: str, authorities: Authorities, *, consent: bool = False) -> list[TakeBack]:
    """What a destination has, or may have, of patients who opted out, oldest first; with `consent` also of those of whom no consent stands.

    Of the destination's `project`, or of that for which an object left, if the policy had another one then. A patient is whom the images
    name, by PatientID or besides, or an order of the study. A consent of PatientID or the order counts, as of an object that the order set
    right; what images name besides can only opt out. What may be of a patient who opted out, and is not surely, is not `sure`.
    Raises `TryAgain`.
    """
    grounds = dict[tuple[str, str], _Ground]()
    try:
        with connect(dsn, name="hilum withdraw") as connection:
            asks = _Asks(connection, authorities)
            for (left_for,) in connection.execute(_LEFT_FOR, (destination,)).fetchall():
                asked = {left_for or project, project}
                for of in asked:
                    values = {"destination": destination, "project": of, "left_for": [left_for], "all": consent}
                    for study, value, issuer, ordered, named in connection.execute(_STUDIES, values).fetchall():
                        also = msgspec.convert(named, tuple[Identifier, ...])
                        image = _as_named(Identifier(value=value, issuer=issuer), also)
                        whose = _Whose(image=image, ordered=msgspec.convert(ordered, tuple[Identifier, ...]), named=also)
                        ground = asks.opted_out(whose, of)
                        if consent and not (ground and ground.sure) and not asks.consented(whose, asked):
                            ground = _Ground(why="no-consent", by=(), sure=True)
                        known = grounds.get((study, left_for))
                        if ground and (known is None or ground.sure > known.sure):
                            grounds[study, left_for] = ground
            studies = msgspec.json.encode([{"study": study, "project": left_for} for study, left_for in grounds]).decode()
            several = set(connection.execute(_OF_SEVERAL, {"studies": studies}).fetchall())
    except AWAY as error:
        raise away(dsn, error) from None
    found = []
    for output in rows(dsn, Output, _OF_STUDIES, {"destination": destination, "studies": studies}):
        study = (output.study_instance_uid, output.project)
        ground = grounds[study]
        found.append(TakeBack(output=output, why=ground.why, by=ground.by, sure=ground.sure and study not in several))
    return found


def _as_named(image: Identifier, named: Iterable[Identifier]) -> Identifier:
    """PatientID of a study's images, with the universal id of who assigned it if that is all that they say of it: the index has none."""
    own = (each for each in named if each.universal_id and not each.issuer and value_of(each) == value_of(image))
    return image if image.issuer else next(own, image)


class _Whose(Struct, frozen=True, kw_only=True):
    """By whom a study may be: by its images, its orders, and what its images name besides PatientID."""

    image: Identifier
    ordered: tuple[Identifier, ...]
    named: tuple[Identifier, ...]

    def surely(self, told: dict[Identifier, dict[OptOut, bool]]) -> set[OptOut]:
        """The opt-outs that surely mean the patient: as the objects left, by the orders' identifier if there is one.

        What images name besides counts if it says who assigned it: it is rarely who assigned PatientID. Not so the PatientID that an
        order replaced: it may be anybody's.
        """
        ordered = [each for each in self.ordered if value_of(each)]
        lines = [{line for line, sure in told[each].items() if sure} for each in ordered or [self.image]]
        besides = [
            each for each in self.named if (each.issuer or each.universal_id) and not (ordered and value_of(each) == value_of(self.image))
        ]
        return set.intersection(*lines).union(*({line for line, sure in told[each].items() if sure} for each in besides))


class _Asks:
    """Asks the list about patients, each once."""

    def __init__(self, connection: psycopg.Connection[Any], authorities: Authorities) -> None:
        self._survivor = cache(lambda patient: survivor_of(connection, patient, authorities))
        self._opt_outs = cache(lambda patient, of: opt_outs(connection, patient, of, self._survivor(patient), authorities))
        self._standing = cache(lambda patient, of: standing(connection, patient, of, self._survivor(patient), authorities))

    def opted_out(self, whose: _Whose, of: str) -> _Ground | None:
        """Why what left of a study is to be taken back for a project; None if nobody opted out who may be its patient."""
        told = {each: self._opt_outs(each, of) for each in (whose.image, *whose.ordered, *whose.named)}
        surely = whose.surely(told)
        perhaps = {line for lines in told.values() for line in lines}
        by = sorted(surely or perhaps, key=lambda line: (line.value, line.issuer, line.project))
        return _Ground(why="opt-out", by=tuple(by), sure=bool(surely)) if by else None

    def consented(self, whose: _Whose, of: Iterable[str]) -> bool:
        """Whether a consent to one of these projects stands."""
        return any(self._standing(each, each_project).consented for each in (whose.image, *whose.ordered) for each_project in of)


def withdrawn(dsn: str, output: Output) -> None:
    """An output was taken back from its destination. Raises `TryAgain`."""
    try:
        with connect(dsn, name="hilum withdraw") as connection:
            connection.execute(_WITHDRAWN, (output.destination, output.sent_as, output.begun_at))
    except AWAY as error:
        raise away(dsn, error) from None
