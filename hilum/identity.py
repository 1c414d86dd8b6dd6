"""When two patient identifiers are one: the same rules for pseudonyms, merges, opt-outs and consents.

An identifier says nothing without its issuer (PS3.3 C.7.1.1, HL7 v2.5.1 2.A.14), and both come in several forms. What is made equal:

- spaces and control characters around a value or an issuer, padding with NUL included, and runs of spaces within;
- composed and decomposed letters (Unicode NFC);
- for issuers only: upper and lower case; `urn:oid:`; a hierarchic designator in one text (`NORTH&1.2.3&ISO`) and in parts; and what the
  site declares to be one authority (`Authorities.same`).

What is *not* made equal, since to take two patients for one is worse than the reverse: upper and lower case, leading zeros and
punctuation of the identifier itself. Of an issuer's two names the namespace counts (IssuerOfPatientID, CX.4.1), and its universal id
only without one (UniversalEntityID, CX.4.2), as everywhere in Hilum.

An identifier that stands for nobody (`UNKNOWN`, `0`) is that of no one patient, and so never the same as another, or as itself.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from hilum.nobody import stands_for_nobody
from hilum.order_events import Identifier

_OID = re.compile(r"[0-9]+(\.[0-9]+)+")
_DELETE = '""'  # HL7 v2.5.1 2.5.3
_INVISIBLE = {"Cc": " ", "Zs": " ", "Zl": " ", "Zp": " ", "Cf": ""}


class Authorities(Struct, frozen=True, kw_only=True):
    """Who assigns patient identifiers at a site."""

    #: Who assigned an identifier that does not say.
    default: str = ""
    #: Other names of an authority, and the one that counts: `{"1.2.3.4": "NORTH", "HIS": "NORTH"}`.
    same: Mapping[str, str] = {}

    def of(self, identifier: Identifier) -> str:
        """Who assigned an identifier, in the form that is compared; empty if nobody says."""
        named = next(iter(self._names(identifier)), "")
        return named or self._meant(_issuer(self.default))

    def assigned(self, identifier: Identifier) -> Identifier:
        """The identifier, with the default authority if it names none."""
        return identifier if self._names(identifier) else replace(identifier, issuer=self.default)

    def may_be(self, one: Identifier, other: Identifier) -> bool:
        """Whether both may be of one authority: unless both say which, by names of one kind, and have none in common.

        Who has a namespace alone may be who has a universal id alone, as long as nobody declared which of both belong together.
        """
        ours, theirs = self._names(one), self._names(other)
        return not ours.keys().isdisjoint(theirs) or _kinds(one, ours).isdisjoint(_kinds(other, theirs))

    def is_one(self, one: Identifier, other: Identifier) -> bool:
        """Whether both are the same identifier, without doubt."""
        ours, theirs = self._names(self.assigned(one)), self._names(self.assigned(other))
        return _are_somebodys(one, other) and (ours == theirs or not ours.keys().isdisjoint(theirs))

    def is_same(self, one: Identifier, other: Identifier) -> bool:
        """Whether both have one pseudonym: the same value of the authority that counts. What is deleted for one is not another's.

        Narrower than `is_one`, which takes two names of an authority for one where a message has both and nobody declared so.
        """
        return _are_somebodys(one, other) and self.of(one) == self.of(other)

    def _names(self, identifier: Identifier) -> dict[str, None]:
        """What its authority is called, what counts first."""
        names = [each for each in _parts(identifier) if each]
        declared = [meant for each in names if (meant := self._meant(each)) != each]
        return dict.fromkeys([*declared, *names])

    def _meant(self, name: str) -> str:
        return next((_issuer(meant) for other, meant in self.same.items() if _issuer(other) == name), name)


def _kinds(identifier: Identifier, names: Iterable[str]) -> set[str]:
    """Whether these names of its authority are namespaces or universal ids, whichever field they are in: lists have one."""
    universal = _parts(identifier)[1]
    return {"universal id" if each == universal or _OID.fullmatch(each) else "namespace" for each in names}


def value_of(identifier: Identifier) -> str:
    """The identifier's value in the form that is compared; empty if there is none."""
    tidied = tidy(identifier.value)
    return "" if tidied == _DELETE else tidied


def is_nobodys(identifier: Identifier) -> bool:
    """Whether the identifier has no value, or one by which nobody is meant: `UNKNOWN`, `0`."""
    return stands_for_nobody(value_of(identifier))


def _are_somebodys(one: Identifier, other: Identifier) -> bool:
    """Whether both have one value, by which somebody is meant."""
    return value_of(one) == value_of(other) and not is_nobodys(one)


def tidy(text: str) -> str:
    """A text without what cannot be seen, spaces once, in NFC."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    if not text.isprintable():
        text = "".join(_INVISIBLE.get(unicodedata.category(c), c) for c in text)
    return " ".join(text.split())


def _parts(identifier: Identifier) -> tuple[str, str]:
    namespace, universal = _issuer(identifier.issuer), _issuer(identifier.universal_id)
    if "&" in namespace:  # HD in one text, as some systems write it into (0010,0021)
        namespace, second = (_issuer(part) for part in (namespace + "&").split("&")[:2])
        universal = universal or second
    return namespace, universal


def _issuer(text: str) -> str:
    tidied = tidy(text).casefold()
    return "" if tidied == _DELETE else tidied.removeprefix("urn:oid:")
