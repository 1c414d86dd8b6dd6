"""Pseudonyms of patients of whom there is no object at hand: for links after merges."""

from __future__ import annotations

from collections.abc import Callable

from hilum.deid_sections import Deid
from hilum.errors import Misconfigured
from hilum.identity import Authorities
from processors.anonymize.identity import subject_of
from processors.anonymize.keys import read_key
from processors.anonymize.pseudonyms import Pseudonyms


def pseudonym_of(deid: Deid, project: str, key_id: str) -> Callable[[str, str, str], str]:
    """By PatientID, IssuerOfPatientID and universal id, as objects of that patient left under that key; `""` for an empty one.

    Raises `Misconfigured` if the key is not there, or not as it must be.
    """
    if deid.key_file is None:
        raise Misconfigured("key-not-named", "`deid.key_path` names no file.", fix="Name it in the settings file.")
    pseudonyms = Pseudonyms(read_key(deid.key_file, key_id), project)
    authorities = Authorities(default=deid.default_issuer, same=deid.same_issuers)

    def of(value: str, issuer: str, universal_id: str) -> str:
        subject = subject_of(value, issuer, universal_id, authorities)
        return pseudonyms.patient_id(subject) if subject is not None else ""

    return of
