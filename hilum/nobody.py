"""What is written where an identifier or a name belongs, and stands for nobody: all who are called so are not one patient."""

from __future__ import annotations

import re

#: Words, folded and in lower case.
WORDS = frozenset(
    {"anonymous", "anonymized", "anonymised", "anon", "anonym", "unknown", "unbekannt", "inconnu", "none", "null", "nobody", "removed"}
    | {"deidentified", "patient", "pseudonym"}
)
_SIGNS = re.compile(r"0+|na|n/a|-+|\?+|\.+|x+", re.ASCII)


def stands_for_nobody(value: str) -> bool:
    """Whether each word of a value, as it stands, says that nobody is meant: `UNKNOWN`, `Patient^Anonymous`, `0`, `N/A`; `""` does."""
    words = value.lower().replace("^", " ").replace("_", " ").split()
    return all(word in WORDS or _SIGNS.fullmatch(word) for word in words)
