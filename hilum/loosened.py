"""What a configuration lets out that the one in force does not: policies that are taken off destinations, or say less."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from hilum.anonymizing import package, policies_of, policy_for
from hilum.bundle import InForce
from hilum.errors import Misconfigured, Refused
from hilum.settings import Settings


class Looser(Struct, frozen=True, kw_only=True):
    """One thing that leaves, or leaves more of itself, by another configuration."""

    #: The destination; empty if it is about a policy, wherever that is used.
    destination: str
    policy: str
    #: What leaves, a phrase.
    what: str

    def says(self) -> str:
        """That, for a person."""
        return f"{f'The destination {self.destination}' if self.destination else f'The policy {self.policy}'}: {self.what}."


class LetsOut(Struct, frozen=True, kw_only=True):
    """What decides how much of objects leaves for a destination."""

    #: The policy's name; empty: objects leave as they are.
    policy: str = ""
    #: What the policy says, as `hilum.anonymizing.Anonymizer.said`; None if it cannot be read here, or there is none.
    said: Mapping[str, Any] | None = None
    #: Whether only objects of patients leave who consented.
    consent: bool = False
    #: Whether what left de-identified before leaves once more.
    again: bool = False

    @property
    def id(self) -> str:
        """12 hexadecimal digits of all of it: equal ones have the same."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()[:12]


def lets_out(destination: str, settings: Settings) -> LetsOut:
    """What leaves for a destination of the settings, by its table and policy."""
    table = settings.destinations[destination]
    policy = policies_of({destination: table}).get(destination, "")
    consent, again = table.get("patients") == "consent", table.get("deidentified") == "again"
    return LetsOut(policy=policy, said=_said(destination, policy, settings), consent=consent, again=again)


def beyond(destination: str, before: LetsOut, after: LetsOut) -> Iterator[Looser]:
    """What leaves for a destination by `after` and not by `before`."""
    if not before.policy:
        return
    if not after.policy:
        what = f"the policy {before.policy} is taken off: objects will leave as they are, with names; what waits under it is put aside"
        yield Looser(destination=destination, policy=before.policy, what=what)
        return
    about = destination if after.policy != before.policy else ""
    for what in _of_policies(before.said, after.said):
        said = f"by the policy {after.policy} (was {before.policy}) {what}" if about else what
        yield Looser(destination=about, policy=after.policy, what=said)
    if before.consent and not after.consent:
        yield Looser(destination=destination, policy=after.policy, what="objects of patients who did not consent will leave (were held)")
    if after.again and not before.again:
        yield Looser(destination=destination, policy=after.policy, what="what left de-identified before will leave once more (was held)")


def same(destination: str, one: LetsOut, other: LetsOut) -> bool:
    """Whether neither lets out more, in words: the order of options or another release's way to write a policy makes no difference."""
    return one.id == other.id or not any((*beyond(destination, one, other), *beyond(destination, other, one)))


def members_of(destination: str, settings: Settings) -> tuple[str, ...]:
    """The members of a group that were not published; none if it is no group."""
    table = settings.destinations[destination]
    return tuple(each for each in table["members"] if each not in applied(settings)) if table.get("type") == "group" else ()


def looser(before: Settings, after: Settings) -> list[Looser]:
    """What leaves by `after` and not by `before`, of destinations that both have and that had a policy; each once."""
    return list(dict.fromkeys(_looser(before, after)))


def _looser(before: Settings, after: Settings) -> Iterator[Looser]:
    for name in policies_of(before.destinations):
        table = after.destinations.get(name)
        if table is None or (table == before.destinations[name] and name not in applied(before) | applied(after)):
            continue  # gone; or of the settings file, as before: its policy may be elsewhere
        yield from beyond(name, lets_out(name, before), lets_out(name, after))


def applied(settings: Settings) -> frozenset[str]:
    """The destinations that were published with `hilum apply`."""
    return settings.applied if isinstance(settings, InForce) else frozenset()


def _said(destination: str, policy: str, settings: Settings) -> Mapping[str, Any] | None:
    if not policy:
        return None
    try:
        said: Mapping[str, Any] | None = policy_for(destination, policy, settings).get("policy")
    except Misconfigured:  # of which whoever checks it tells
        return None
    return said


def _of_policies(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> Sequence[str]:
    if before is None or after is None:
        return ["whether more will leave cannot be told: one of both policies cannot be read here"]
    found: list[str] = package("processors.anonymize.loosening").looser({"policy": before}, {"policy": after})
    return found


def refuse_looser(found: Sequence[Looser]) -> None:
    """Raise `Refused` that says what would leave, if anything would."""
    if found:
        said = "".join(f"\n- {each.says()}" for each in found)
        raise Refused(f"More would leave than by the configuration in force:{said}", fix="If that is meant, add --yes.")
