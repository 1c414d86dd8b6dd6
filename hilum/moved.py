"""Policies and destinations that get another project by a configuration: who opted out of the former one must not be forgotten."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from hilum.anonymizing import policy_for
from hilum.database.projects import choices
from hilum.errors import Misconfigured
from hilum.settings import Settings


class Moved(Struct, frozen=True, kw_only=True):
    """What gets another project, and who had chosen about the former one."""

    #: The policy whose `domain` changes; empty if a destination gets another policy.
    policy: str
    #: The destination that gets another policy; empty if a policy changes.
    destination: str
    former: str
    project: str
    #: Patients who opted out of the former project, and who consented to it.
    opted_out: int
    consented: int

    def says(self) -> str:
        """What that means, in words."""
        what = f"The policy {self.policy}" if self.policy else f"The destination {self.destination}"
        said = f"{what} gets the project {self.project}, and had {self.former}, of which {self.opted_out:,} patients opted out"
        said += f" and to which {self.consented:,} consented; their consents are none of {self.project}." if self.consented else "."
        if not self.opted_out:
            return said
        if self.policy:
            said += " These opt-outs count for both until somebody decides"
        else:
            said += f" Another policy is another project: these opt-outs do not count for {self.project}, unless they are carried over"
        return f"{said}: hilum deid projects carry {self.former} {self.project}"


def projects_of(settings: Settings) -> dict[str, tuple[str, str]]:
    """Of each destination with a policy that can be read: the policy and its project."""
    found = {}
    for name, table in settings.destinations.items():
        policy = table.get("policy")
        if isinstance(policy, str) and policy:
            try:
                found[name] = policy, str(policy_for(name, policy, settings)["policy"]["domain"])
            except Misconfigured:  # of which whoever checks it tells
                continue
    return found


def moved(before: Settings, after: Settings) -> list[Moved]:
    """What gets another project where anybody has chosen about the former one. Raises `TryAgain`, `Misconfigured`."""
    found = []
    for policy, destination, former, project in dict.fromkeys(_moves(projects_of(before), projects_of(after))):
        opted_out, consented = choices(after.postgres.dsn, former)
        if opted_out or consented:
            found.append(
                Moved(policy=policy, destination=destination, former=former, project=project, opted_out=opted_out, consented=consented)
            )
    return found


def _moves(before: dict[str, tuple[str, str]], after: dict[str, tuple[str, str]]) -> Iterator[tuple[str, str, str, str]]:
    former_of = dict(before.values())
    for destination, (policy, project) in after.items():
        if (former := former_of.get(policy, project)) != project:
            yield policy, "", former, project
        elif destination in before and before[destination][0] != policy and before[destination][1] != project:
            yield "", destination, before[destination][1], project
