"""Who a patient is by now: a patient of images or orders who was merged into another one is found under both, until that is taken back.

The rows of a study stay as its images say; what a merge means is asked when it is looked at, so that to take one back undoes nothing.
"""

from __future__ import annotations


def is_of(value: str, issuer: str, known: str = "known") -> str:
    """Whether a row of `patient_id` is the identifier with this value and issuer (SQL), as far as both say an issuer."""
    return (
        f"({known}.value = {value} AND (coalesce({issuer}, '') IN ('', {known}.issuer, {known}.universal_id)"
        f" OR ({known}.issuer = '' AND {known}.universal_id = '')))"
    )


def person(value: str, issuer: str) -> str:
    """A query for the row of `patient` of who has this identifier, after merges (SQL); for none, if nobody is known by it.

    Nor is there one where several patients have that identifier, of issuers that nobody tells apart.
    """
    return _survivor(value, issuer, "")


def current(value: str, issuer: str) -> str:
    """As `person`, but for none if the patient was merged into nobody."""
    return _survivor(value, issuer, "AND bool_or(former.merged_into IS NOT NULL)")


def _survivor(value: str, issuer: str, condition: str) -> str:
    root = "coalesce(former.merged_into, former.patient_key)"
    return f"""
        SELECT survivor.* FROM patient AS survivor WHERE survivor.patient_key = (
            SELECT CASE WHEN count(DISTINCT {root}) = 1 {condition} THEN min({root}) END
            FROM patient_id AS known JOIN patient AS former USING (patient_key)
            WHERE {is_of(value, issuer)})"""


def same_person(value: str) -> str:
    """A query for `value`, `issuer` and `universal_id` of all whom merges make one with who has this identifier (SQL)."""
    return f"""
        SELECT DISTINCT same_id.value, same_id.issuer, same_id.universal_id
        FROM patient_id AS asked_id JOIN patient AS asked USING (patient_key)
        JOIN patient AS same ON same.patient_key = coalesce(asked.merged_into, asked.patient_key)
            OR same.merged_into = coalesce(asked.merged_into, asked.patient_key)
        JOIN patient_id AS same_id ON same_id.patient_key = same.patient_key
        WHERE asked_id.value = {value} AND (same.merged_into IS NOT NULL OR asked.merged_into IS NOT NULL)"""
