"""Worklist queries on the receiver's side (PS3.4 K): the steps in memory, and the answers to one query after the other.

The role `worklist` keeps the steps in a file beside the spool; `ingest.worklist` says which match and what they say.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator, Sequence
from typing import Any, NamedTuple

from hilum import telemetry
from hilum.dicom.writing import UNICODE, CharacterSet, character_set, encode, holds, is_ascii
from hilum.settings import Settings, Station
from hilum.upper_layer import IMPLICIT_VR_LITTLE_ENDIAN
from hilum.worklist import Worklist
from ingest.worklist.attributes import MODALITY, PATIENT_NAME, START_DATE, START_TIME, STATION, STEPS
from ingest.worklist.matching import remember
from ingest.worklist.packed import Item, unpack
from ingest.worklist.query import BadQuery, Query, read_query

from .answers import Answer
from .worklist_answers import (
    BAD_IDENTIFIER,
    CANNOT_ANSWER,
    FOUND,
    MATCH,
    MATCH_WITH_UNSUPPORTED_KEYS,
    NO_WORKLIST_YET,
    TOO_MANY_MATCHES,
)

log = telemetry.logger("worklist")

#: From this age on the worklist is said to be old.
STALE_S = 300.0


class Seen(NamedTuple):
    """A step as it stands in the list: by its start, and by its id among those that start together."""

    order: tuple[str, str, str]
    stations: frozenset[str]
    modality: str
    item: Item


class Steps:
    """The steps that there are, in the order of their start."""

    def __init__(self) -> None:
        self._by_id: dict[str, Seen] = {}
        self.list: Sequence[Seen] = ()

    def put(self, steps: dict[str, bytes | None], *, whole: bool) -> None:
        """Take in what has changed; `whole` if that is all there is."""
        by_id = {} if whole else dict(self._by_id)
        for id_, body in steps.items():
            if body is None:
                by_id.pop(id_, None)
            else:
                by_id[id_] = seen(id_, item := unpack(body))
                remember(item.get(PATIENT_NAME, ()))
        self._by_id = by_id
        self.list = sorted(by_id.values(), key=lambda each: each.order)


def seen(id_: str, item: Item) -> Seen:
    """A step with what it is sorted and filtered by."""
    step: Item = next(iter(item.get(STEPS, ())), {})
    return Seen((_first(step, START_DATE), _first(step, START_TIME), id_), frozenset(step.get(STATION, ())), _first(step, MODALITY), item)


def _first(item: Item, tag: str) -> str:
    return next(iter(item.get(tag, ())), "")


class Finder:
    """Answers queries. `steps` are those that there are at the moment, or None while nobody knows."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.worklist
        self._default = _named(self._settings.character_set) or _named(UNICODE)
        self.steps: Steps | None = None
        #: When the role `worklist` last looked at the orders, in seconds since 1970; 0: never.
        self.as_of = 0.0

    def says(self) -> str:
        """What is wrong with the worklist, in a sentence; empty if nothing is."""
        if self.steps is None:
            return "There is no worklist yet: see whether the role worklist runs."
        old_s = time.time() - self.as_of
        return f"The worklist is {old_s / 60:.0f} minutes old: see whether the role worklist runs." if old_s > STALE_S else ""

    def find(self, calling_aet: str, data_set: bytes, transfer_syntax_uid: str) -> Iterator[tuple[Answer, bytes | None]]:
        """The answers to a C-FIND, each match as soon as it is found; the last one has no data set."""
        last = CANNOT_ANSWER
        try:
            query = read_query(data_set, transfer_syntax_uid)
            last = yield from self._matches(calling_aet, query, explicit=transfer_syntax_uid != IMPLICIT_VR_LITTLE_ENDIAN)
        except BadQuery as error:
            log.warning("worklist_query_refused", says=str(error), calling_aet=calling_aet)
            last = BAD_IDENTIFIER
        except Exception as error:  # a fault of ours on one query must not end the association
            log.error("worklist_query_failed", calling_aet=calling_aet, error=telemetry.described(error))
        telemetry.WORKLIST_QUERIES.labels(status=f"0x{last.status:04X}").inc()
        yield last, None

    def _matches(self, calling_aet: str, query: Query, *, explicit: bool) -> Generator[tuple[Answer, bytes | None], None, Answer]:
        steps = self.steps
        if steps is None:
            return NO_WORKLIST_YET
        station = self._settings.stations.get(calling_aet, Station())
        answer, most, count = MATCH_WITH_UNSUPPORTED_KEYS if query.has_unsupported else MATCH, self._settings.max_answers, 0
        for step in steps.list:
            if not _is_for(station, step) or not query.matches(step.item):
                continue
            if most and count >= most:
                return TOO_MANY_MATCHES
            count += 1
            attributes = query.answer(step.item)
            yield answer, encode(attributes, self._character_set(station, query, attributes), explicit=explicit)
        return FOUND

    def _character_set(self, station: Station, query: Query, attributes: dict[str, Any]) -> CharacterSet:
        """The station's; else the one that the query names, if it holds all of the answer; else the site's."""
        default = self._default
        assert default is not None
        if is_ascii(attributes):
            return default
        if station.character_set:
            return _named(station.character_set) or default
        asked = character_set(*query.character_set) if query.character_set else None
        return asked if asked is not None and holds(attributes, asked) else default


def _named(terms: str) -> CharacterSet | None:
    return character_set(*terms.split("\\")) if terms else None


def _is_for(station: Station, step: Seen) -> bool:
    """Whether a station may be told of a step: one of no station or modality is for any."""
    if station.stations and step.stations and not step.stations & set(station.stations):
        return False
    return not station.modalities or not step.modality or step.modality in station.modalities


class Following(threading.Thread):
    """Keeps a finder's steps as the file has them."""

    def __init__(self, settings: Settings, finder: Finder, stop: threading.Event) -> None:
        super().__init__(name="worklist", daemon=True)
        self._settings = settings
        self._finder = finder
        self._stop_asked = stop
        self._version = -1
        self._worklist: Worklist | None = None

    def run(self) -> None:
        """Follow until stopped. A file that cannot be read leaves what was known before."""
        while not self._stop_asked.is_set():
            try:
                self.look()
            except OSError as error:
                self._worklist = None
                log.warning("worklist_unreadable", says=error.strerror or "")
            except Exception as error:  # a fault of ours must not end it: the list would stay as it is for ever
                log.error("worklist_unreadable", error=telemetry.described(error))
            self._stop_asked.wait(self._settings.worklist.refresh_s / 2)

    def look(self) -> None:
        """Take in what has changed. Raises `OSError`."""
        if self._worklist is None:
            self._worklist = Worklist(self._settings)
        changes = self._worklist.since(self._version)
        if not changes.at:
            return
        self._finder.as_of = changes.at
        if changes.version != self._version or self._finder.steps is None:
            steps = self._finder.steps or Steps()
            steps.put(changes.steps, whole=changes.whole)
            self._finder.steps = steps
            self._version = changes.version
            telemetry.WORKLIST_STEPS.set(len(steps.list))
