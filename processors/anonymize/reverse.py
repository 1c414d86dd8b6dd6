"""Back from a pseudonym to its original: only for policies that ask for it, sealed, and each look-up is told before it is answered.

A row can be read with the key of the table alone (AES-256-GCM, NIST SP 800-38D), which is another one than that of the pseudonyms. It is
bound to its project, kind and pseudonym: a row that was moved to another pseudonym opens no more. Rows are in the table `deid_reverse`
before the first byte of their object leaves.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Struct

from hilum.anonymizing import Sealed
from hilum.deid_sections import Deid
from hilum.errors import HilumError, Misconfigured, NotFound, Refused
from processors.anonymize.keys import Key, read_key

_NONCE_BYTES = 12  # SP 800-38D 8.2.2: by chance, for fewer than 2**32 rows of one key


class Original(Struct, frozen=True, kw_only=True):
    """What a pseudonym stands for. It names a patient: it is shown to who asked, and goes nowhere else."""

    #: `patient`, `accession` or `uid`.
    kind: str
    value: str
    #: Who assigned it, as far as the object or the merge said so.
    issuer: str = ""


class LookUp(Struct, frozen=True, kw_only=True):
    """A look-up as the audit keeps it. The original is not in it."""

    #: The account, and what it gave as its reason.
    who: str
    why: str
    project: str
    pseudonym: str


class _Sealed(Struct, frozen=True):
    value: str
    issuer: str = ""


#: Keeps a look-up for good before it returns; raises if it cannot.
Audit = Callable[[LookUp], None]


def table_key(deid: Deid, key_id: str = "") -> Key:
    """The key of the table, in force or by its id. Raises `Misconfigured` if none is named, or it is not as it must be."""
    if deid.reverse_key_file is None:
        raise Misconfigured(
            "reverse-key-not-named",
            "The way back from pseudonyms needs a key of its own, and `deid.reverse_key_path` names no file.",
            fix="Make one: hilum deid keys make --key FILE, and name it there, on every machine that delivers.",
        )
    if deid.reverse_key_file == deid.key_file:
        raise Misconfigured("reverse-key-same", "`deid.reverse_key_path` is the key of the pseudonyms.", fix="Make another one for it.")
    return read_key(deid.reverse_key_file, key_id)


def seal(key: Key, project: str, kind: str, pseudonym: str, value: str, issuer: str = "") -> Sealed:
    """The row that leads from `pseudonym` back."""
    nonce = os.urandom(_NONCE_BYTES)
    text = msgspec.json.encode(_Sealed(value, issuer))
    sealed = nonce + _cipher(key, project).encrypt(nonce, text, _bound_to(project, kind, pseudonym))
    return Sealed(project=project, kind=kind, pseudonym=pseudonym, key_id=key.id, sealed=sealed)


def sealed(key: Key, project: str, patient: tuple[str, str, str], others: Mapping[str, tuple[str, str]]) -> tuple[Sealed, ...]:
    """The rows of one object: of its patient (pseudonym, PatientID, issuer), and of others, by pseudonym, kind and original."""
    pseudonym, value, issuer = patient
    rows = [seal(key, project, "patient", pseudonym, value, issuer)] if pseudonym and value else []
    rows += [
        seal(key, project, kind, each, original) for each, (kind, original) in others.items() if each and original and each != original
    ]
    return tuple(rows)


def look_up(
    rows: Callable[[], Iterable[Sealed]],
    key_of: Callable[[str], Key],
    project: str,
    pseudonym: str,
    *,
    who: str,
    why: str,
    audit: Audit,
) -> list[Original]:
    """What a pseudonym stands for, told to `audit` first, found or not. `rows` are read after that.

    `key_of` gives the table's key by its id, the one in force for `""`. Raises `Misconfigured` without it, before anything is told;
    `Refused` without a person or a reason; `NotFound` if no row has the pseudonym; `HilumError` if its row was changed; and whatever
    `audit` raises: then nothing is shown.
    """
    if not who.strip() or not why.strip():
        raise Refused("A look-up names who asks, and why.", fix="Give a reason that the privacy officer can follow: --why TEXT.")
    key_of("")
    audit(LookUp(who=who.strip(), why=why.strip(), project=project, pseudonym=pseudonym))
    found = [each for each in rows() if (each.project, each.pseudonym) == (project, pseudonym)]
    if not found:
        raise NotFound(
            "The table has no such pseudonym of that project.",
            fix="Check the project; only what left since its policy has `reverse = true` is in it.",
        )
    return [_opened(row, key_of(row.key_id)) for row in found]


def _opened(row: Sealed, key: Key) -> Original:
    try:
        nonce, text = row.sealed[:_NONCE_BYTES], row.sealed[_NONCE_BYTES:]
        opened = _cipher(key, row.project).decrypt(nonce, text, _bound_to(row.project, row.kind, row.pseudonym))
        said = msgspec.json.decode(opened, type=_Sealed)
    except (InvalidTag, ValueError):
        raise HilumError("The row was changed, or is of another key than it says.", fix="Restore the table from its backup.") from None
    return Original(kind=row.kind, value=said.value, issuer=said.issuer)


def _cipher(key: Key, project: str) -> AESGCM:
    return AESGCM(HKDF(SHA256(), 32, None, b"hilum reverse table 1\0" + project.encode()).derive(key.secret))


def _bound_to(*parts: str) -> bytes:
    return msgspec.json.encode(parts)
