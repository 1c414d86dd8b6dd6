"""What a policy lets an output keep of its original."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal

from msgspec import Struct


class Scope(Struct, frozen=True, kw_only=True):
    """What the policy lets an output keep of its original: that is not looked for."""

    #: Retain UIDs.
    uids: bool = False
    #: `kept`: Retain Longitudinal with Full Dates; the patient's birth date is looked for all the same.
    dates: Literal["removed", "shifted", "kept"] = "removed"
    #: Retain Device Identity.
    device: bool = False
    #: Retain Institution Identity.
    institution: bool = False
    #: Tags whose values the policy keeps by name.
    keep: frozenset[int] = frozenset()
    #: The policy's name, which stands in DeidentificationMethod: there, it is nobody's.
    name: str = ""

    @classmethod
    def of(cls, options: Collection[str], keep: Iterable[int] = (), name: str = "") -> Scope:
        """What the policy `name` with these options (such as `retain-uids`) lets an output keep; `keep` are tags that it keeps by name."""
        dates: Literal["removed", "shifted", "kept"] = "shifted" if "retain-modified-dates" in options else "removed"
        return cls(
            uids="retain-uids" in options,
            dates="kept" if "retain-full-dates" in options else dates,
            device="retain-device-identity" in options,
            institution="retain-institution-identity" in options,
            keep=frozenset(keep),
            name=name,
        )
