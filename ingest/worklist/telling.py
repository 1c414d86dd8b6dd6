"""From the file of performed steps onto Kafka: what a modality said, which objects a study should have, and which study is to be held."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from hilum.bus import Log, Record, Writer, timestamp
from hilum.desired import study as study_resource
from hilum.errors import TryAgain
from hilum.events import Event, ProcedureStepChanged, ResourceWanted, StepPerformed, StudyExpected, following_id
from hilum.procedures import Procedures
from hilum.settings import Settings

from .performed import references

#: Objects that one event may name: some 300 KB of them.
_MOST_OBJECTS = 4_000
#: How long Kafka may take to acknowledge what is told at once.
_WITHIN_S = 5.0


def events_of(event: ProcedureStepChanged, objects: Callable[[], Iterator[str]], *, hold: bool) -> Iterator[tuple[str, Event]]:
    """What is to be said when a step has changed, each with its id: equal on every repeat.

    At its end, the objects that its study should have: in the group case nobody says which study an object is of. After a wrong
    choice from the worklist, the study is held, if `hold`, until a person lets it go on.
    """
    cause = f"{event.sop_instance_uid}/{event.revision}"
    yield following_id(cause, "worklist", 0), event
    yield following_id(cause, "worklist/performed", 0), StepPerformed.of(event)
    studies = event.study_instance_uids
    if event.is_wrong_entry:
        for number, study in enumerate(studies if hold else ()):
            why = "Its procedure step was discontinued: incorrect worklist entry selected (110514)."
            wanted = ResourceWanted(resource=study_resource(study), held=True, why=why, by="worklist", since=event.changed_at)
            yield following_id(cause, "worklist/hold", number), wanted
    elif event.state != "in-progress" and len(studies) == 1:
        uids = list(dict.fromkeys(objects()))
        for at in range(0, len(uids), _MOST_OBJECTS):
            chunk = tuple(uids[at : at + _MOST_OBJECTS])
            expected = StudyExpected(study_instance_uid=studies[0], source="mpps", sop_instance_uids=chunk, said_at=event.changed_at)
            yield following_id(cause, "worklist/expected", at), expected


class Teller:
    """Tells Kafka what is untold, in order."""

    def __init__(self, settings: Settings, procedures: Procedures, connect: Callable[[], Log]) -> None:
        self._procedures = procedures
        self._writer = Writer(settings, "worklist")
        self._hold = settings.worklist.hold_wrong_entry
        self._connect = connect
        self._kafka: Log | None = None

    def tell(self) -> int:
        """Tell some; how many. Raises `OSError`, and `TryAgain` if Kafka does not acknowledge: it is told again, under the same ids."""
        untold = self._procedures.untold()
        if not untold:
            return 0
        self._kafka = self._kafka or self._connect()
        failed: list[Any] = []
        for each in untold:
            for id_, event in events_of(each.event, lambda uid=each.event.sop_instance_uid: self._objects(uid), hold=self._hold):  # type: ignore[misc]  # bound now
                self._send(self._kafka, self._writer.record(event, id_, time=timestamp(each.event.changed_at)), failed)
        if self._kafka.flush(_WITHIN_S) or failed:
            raise TryAgain("Kafka does not acknowledge what modalities say of their steps.", fix="Check that the broker runs.")
        self._procedures.told([each.number for each in untold])
        return len(untold)

    def _objects(self, sop_instance_uid: str) -> Iterator[str]:
        known = self._procedures.get(sop_instance_uid)
        return references(known.attributes) if known is not None else iter(())

    @staticmethod
    def _send(kafka: Log, record: Record, failed: list[Any]) -> None:
        def delivered(error: Any, _: Any) -> None:
            if error is not None:
                failed.append(error)

        try:
            kafka.produce(record.topic, record.value, record.key, headers=record.headers, on_delivery=delivered)
        except BufferError as error:
            failed.append(error)
