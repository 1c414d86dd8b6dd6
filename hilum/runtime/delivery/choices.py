"""What patients chose, of an object that is about to leave."""

from __future__ import annotations

from collections.abc import Sequence

from hilum.anonymizing import NotAnonymized
from hilum.database.persons import Standing


def refuse_opted_out(project: str, standings: Sequence[Standing]) -> None:
    """Raise `NotAnonymized` if one of those whom the object names opted out of the project, or of a former one and nobody decided."""
    opted_out = [each for each in standings if each.opted_out]
    if former := min((each.former for each in opted_out), default=""):
        raise NotAnonymized(
            "opted-out-before",
            f"Its patient opted out of {former}, another project that a policy of {project} has had, and nobody decided whether that "
            f"holds for {project}. It was not sent.",
            fix=f"Carry these opt-outs over, or say that they hold nothing of it: hilum deid projects carry {former} {project}, "
            f"or hilum deid projects release {former} {project}",
        )
    if opted_out:
        raise NotAnonymized(
            "opted-out",
            f"Its patient opted out of {project}, or has no PatientID or nobody's (as UNKNOWN), while others opted out. It was not sent.",
            fix="Cancel the delivery, or correct the list: hilum deid patients list",
        )
