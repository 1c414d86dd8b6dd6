"""Pseudonyms that a merge made one patient: noticed after the fact, and told; what left stays as it is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from hilum import bus, database, telemetry
from hilum.anonymizing import package
from hilum.database.links import PseudonymOf, hold, left_under, merged, under
from hilum.database.persons import survivor_of
from hilum.errors import HilumError
from hilum.identity import Authorities
from hilum.order_events import Identifier, Patient
from hilum.settings import Settings

#: A merge is told after at most so long.
LOOK_S = 300.0
#: How often it is asked whether it is time.
_POLL_S = 1.0
#: Pseudonyms that are asked for at once.
_CHUNK = 1000

log = telemetry.logger("deliver")


class Linking:
    """Looks for merges of patients whose objects left, as long as deliveries run."""

    def __init__(self, settings: Settings, *, now: Callable[[], datetime] = lambda: datetime.now(UTC), poll_s: float = _POLL_S) -> None:
        self._settings = settings
        self._now, self._poll_s = now, poll_s
        self._said = ""

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set. Without a key, or while PostgreSQL is away, it waits."""
        if not self._settings.deid.key_path:
            return
        looked_at = self._now()
        while not stop.wait(self._poll_s):
            now = self._now()
            if looked_at <= now < looked_at + timedelta(seconds=LOOK_S):
                continue  # a clock that was set back does not stop it
            looked_at = now
            try:
                says = "; ".join(f"{project}: {why}" for project, why in self.look().items())
            except HilumError as error:
                says = str(error)
            except psycopg.Error as error:
                says = f"PostgreSQL does not tell of merges ({error.sqlstate or type(error).__name__})."
            if says and says != self._said:
                log.warning("links_wait", says=says)
            self._said = says

    def look(self) -> dict[str, str]:
        """Bring the links of all projects up to date; why those of a project could not be, by its name.

        Raises `TryAgain`, `Misconfigured`, or one of `AWAY`.
        """
        settings, failed = self._settings, {}
        writer = bus.Writer(settings, "deliver")
        with closing(database.connect(settings.postgres.dsn, name="hilum links")) as connection:
            for project, key_id in under(connection):
                try:
                    pseudonym_of = package("processors.anonymize.linking").pseudonym_of(settings.deid, project, key_id)
                except HilumError as error:
                    failed[project] = str(error)
                    continue
                authorities = Authorities(default=settings.deid.default_issuer, same=settings.deid.same_issuers)
                links = sorted(_links(connection, project, key_id, pseudonym_of, authorities))
                new, ended = hold(connection, writer, project, key_id, links)
                if new or ended:
                    log.info("patients_linked", project=project, new=new, ended=ended)
        return failed


def _links(
    connection: psycopg.Connection[Any], project: str, key_id: str, pseudonym_of: PseudonymOf, authorities: Authorities
) -> Iterator[tuple[str, str]]:
    """Each pseudonym that left of a patient who was merged, with that of whom the patient was merged into."""
    found = set()
    everyone = list(_pseudonyms(connection, pseudonym_of).items())
    for begin in range(0, len(everyone), _CHUNK):
        some = dict(everyone[begin : begin + _CHUNK])
        for prior in left_under(connection, project, key_id, some):
            survivor = survivor_of(connection, some[prior], authorities)
            surviving = _first(survivor, pseudonym_of) if survivor is not None else ""
            if surviving and surviving != prior:
                found.add((prior, surviving))
    yield from found


def _pseudonyms(connection: psycopg.Connection[Any], pseudonym_of: PseudonymOf) -> Mapping[str, Identifier]:
    """Under what objects of patients who were merged may have left, with the identifier and issuer that such an object had.

    Objects name their issuer by either of its names, or not at all.
    """
    found: dict[str, Identifier] = {}
    for value, issuer, universal in merged(connection):
        for named in dict.fromkeys((issuer, universal, "")):
            if pseudonym := pseudonym_of(value, named, ""):
                found.setdefault(pseudonym, Identifier(value=value, issuer=named))
    return found


def _first(patient: Patient, pseudonym_of: PseudonymOf) -> str:
    """As whom objects of the patient leave: by the first identifier, as everywhere."""
    first = patient.ids[0] if patient.ids else None
    return pseudonym_of(first.value, first.issuer, first.universal_id) if first is not None else ""
