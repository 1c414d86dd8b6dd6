"""How much of objects leaves for a destination: no more than what was accepted last, whatever the files of a machine say.

What `hilum apply` publishes is asked about there. A destination of the settings file, or one that was added by hand, has its policy of
files that may change without a word: here it is kept by which one it let objects out. The first machine that delivers puts down what it
has, and so does one that lets out less. One that would let out more lets nothing out until an administrator accepts it; nor does one that
has what held before: its files are the old ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any

import msgspec
import psycopg
from msgspec import Struct
from msgspec.structs import replace
from psycopg.rows import dict_row

from hilum.database import AWAY, away, connect
from hilum.database.found import rows
from hilum.errors import Misconfigured
from hilum.loosened import LetsOut, Looser, beyond, same

#: Who put down what a machine had.
FIRST, LESS = "the first machine", "a machine that lets out less"
_LAST = """
    SELECT seq, destination, member, accepted_at, said_id, said, accepted_by, why
    FROM let_out WHERE destination = %(destination)s AND member = %(member)s ORDER BY seq DESC LIMIT 1
"""
_EVER = "SELECT said FROM let_out WHERE destination = %(destination)s AND member = ''"
_ALONE = "SELECT pg_advisory_xact_lock(hashtext('hilum.let_out'))"
_PUT = """
    INSERT INTO let_out (destination, member, said_id, said, accepted_by, why)
    VALUES (%(destination)s, %(member)s, %(said_id)s, %(said)s::jsonb, %(by)s, %(why)s)
"""
#: The members of groups, by the group's name.
Members = Mapping[str, Sequence[str]]


class Held(Struct, frozen=True, kw_only=True):
    """What decided how much left for a destination, from a moment on until the next one."""

    #: The later, the larger, whatever clocks say.
    seq: int
    destination: str
    #: Of a group: for which member this was accepted; else empty.
    member: str
    accepted_at: datetime
    said_id: str
    said: LetsOut
    accepted_by: str
    why: str


class Door:
    """What one worker lets out, held against what was accepted before each batch."""

    def __init__(self, own: LetsOut, name: str = "", members: Iterable[str] = (), *, published: bool = False) -> None:
        """`own` is let out to the destination `name`, and so to its members; if it was published only these are held against."""
        self._own, self._name, self._members = own, name, tuple(members)
        self._published = published
        #: By name, what was found last and judged to let out no less.
        self._judged: dict[str, int] = {}

    def check(self, connection: psycopg.Connection[Any]) -> None:
        """Raise `Misconfigured` if more would leave than was accepted, or other machines have it otherwise by now.

        Raises one of `AWAY`.
        """
        if self._name and not self._published:
            found = _last(connection, self._name)
            if found is None:
                if self._own.policy:
                    self._put_down(connection, self._name)
            elif found.said_id != self._own.id and self._judged.get(self._name) != found.seq:
                self._judge(connection, self._name, found)
        for member in self._members:
            found = _last(connection, member)
            if found is not None and self._judged.get(member) != found.seq:
                self._judge_member(connection, member, found)

    def _judge(self, connection: psycopg.Connection[Any], name: str, found: Held) -> None:
        self._refuse_more(name, found.said)
        if same(name, found.said, self._own):  # in other words, such as those of another release
            self._judged[name] = found.seq
        else:
            self._put_down(connection, name)

    def _refuse_more(self, name: str, held: LetsOut) -> None:
        if more := list(beyond(name, held, self._own)):
            raise Misconfigured(
                "lets-out-more",
                f"More would leave for {name} than was accepted: {' '.join(each.says() for each in more)} Nothing leaves.",
                fix="Give it back what it had. If that is meant, on every machine that delivers: hilum deid policies accept --why",
            )

    def _judge_member(self, connection: psycopg.Connection[Any], member: str, found: Held) -> None:
        if more := _through(self._name, member, found, _last(connection, self._name, member), self._own):
            accept = "hilum apply --yes" if self._published else f"hilum deid policies accept {self._name} --why"
            raise Misconfigured(
                "lets-out-more",
                f"More would leave for {member} than was accepted: {' '.join(each.says() for each in more)} Nothing leaves.",
                fix=f"Give the group {self._name} what its member has. If that is meant: {accept}",
            )
        self._judged[member] = found.seq

    def _put_down(self, connection: psycopg.Connection[Any], name: str) -> None:
        with connection.transaction():
            connection.execute(_ALONE)
            found = _last(connection, name)
            if found is None or (not list(beyond(name, found.said, self._own)) and not _ever(connection, name, self._own)):
                connection.execute(_PUT, _values(name, self._own, LESS if found else FIRST, ""))
                return
        if same(name, found.said, self._own):
            return
        self._refuse_more(name, found.said)  # another machine was first meanwhile
        raise Misconfigured(
            "lets-out-as-before",
            f"{name} has here what held before; another machine lets out something else by now, or it was accepted. Nothing leaves.",
            fix="Have the same policy and settings of the destination on every machine that delivers. If these are to hold again: "
            "hilum deid policies accept --why",
        )


def differing(dsn: str, now: Iterable[tuple[str, LetsOut]], members: Members) -> list[tuple[str, list[Looser]]]:
    """The destinations that let out something else than was accepted last, with what leaves besides. Raises `TryAgain`, `Misconfigured`."""
    last = {(each.destination, each.member): each for each in listed(dsn)}
    found = []
    for name, own in now:
        held = last.get((name, ""))
        more = list(beyond(name, held.said, own)) if held else []
        for member in members.get(name, ()):
            more += _through(name, member, last.get((member, "")), last.get((name, member)), own)
        if more or (held and not same(name, held.said, own)):
            found.append((name, more))
    return found


def accept(dsn: str, now: Iterable[tuple[str, LetsOut]], *, by: str, why: str, members: Members = MappingProxyType({})) -> list[str]:
    """From now on this holds for these destinations, and for members of groups by way of these; of which it did not. Raises `TryAgain`.

    A destination that never had a policy is not kept.
    """
    changed = []
    try:
        with connect(dsn, name="hilum policies") as connection, connection.transaction():
            connection.execute(_ALONE)
            for name, own in now:
                found = _last(connection, name)
                if own.policy if found is None else not same(name, found.said, own):
                    connection.execute(_PUT, _values(name, own, by, why))
                    changed.append(name)
                for member in members.get(name, ()):
                    if _through(name, member, _last(connection, member), _last(connection, name, member), own):
                        connection.execute(_PUT, _values(name, own, by, why, member))
                        changed.append(name)
    except AWAY as error:
        raise away(dsn, error) from None
    return list(dict.fromkeys(changed))


def listed(dsn: str, destinations: Sequence[str] = ()) -> list[Held]:
    """What held, oldest first: for these destinations, or all. Raises `TryAgain`, `Misconfigured`."""
    statement = """
        SELECT * FROM let_out WHERE %(names)s::text[] = '{}' OR destination = ANY(%(names)s::text[]) ORDER BY destination, seq
    """
    return rows(dsn, Held, statement, {"names": list(destinations)})


def _through(group: str, member: str, held: Held | None, accepted: Held | None, own: LetsOut) -> list[Looser]:
    """What leaves for a member by way of a group beyond what it gets by itself, unless that was accepted for both since."""
    if held is None or (accepted is not None and accepted.seq > held.seq and not any(beyond(group, accepted.said, own))):
        return []
    by_way = f"(for its member {member})"
    return [replace(each, destination=group, what=f"{each.what} {by_way}") for each in beyond(member, held.said, own)]


def _last(connection: psycopg.Connection[Any], destination: str, member: str = "") -> Held | None:
    with connection.cursor(row_factory=dict_row) as cursor:
        found = cursor.execute(_LAST, {"destination": destination, "member": member}).fetchone()
    return msgspec.convert(found, Held) if found else None


def _ever(connection: psycopg.Connection[Any], destination: str, own: LetsOut) -> bool:
    former = connection.execute(_EVER, {"destination": destination})
    return any(same(destination, msgspec.convert(said, LetsOut), own) for (said,) in former)


def _values(destination: str, own: LetsOut, by: str, why: str, member: str = "") -> dict[str, Any]:
    said = msgspec.json.encode(own).decode()
    return {"destination": destination, "member": member, "said_id": own.id, "said": said, "by": by, "why": why}
