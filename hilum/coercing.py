"""When attributes of an object may be taken from its study's order: only where it is sure that the order is the study's."""

from __future__ import annotations

from collections.abc import Collection

#: That these differ may well mean that the order is another patient's.
NEVER_ALONE = frozenset({"PatientID", "Modality", "StudyInstanceUID"})


def may_be_coerced(outcome: str, differing: Collection[str], wanted: Collection[str]) -> bool:
    """Whether `wanted` may be taken, by the match's outcome: what differs is nothing else, and not whose the study is."""
    if not wanted or outcome not in ("matched", "mismatched"):
        return False
    return set(differing) <= set(wanted) and NEVER_ALONE.isdisjoint(differing)
