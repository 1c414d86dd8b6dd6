"""What modalities perform of orders (MPPS), and what that makes of an order's status.

Said of a study and its scheduled steps, and kept by study, so that it does not matter whether the order or the modality is heard
first. The message last sent of a performed step holds, by its number; clocks of modalities decide nothing among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from hilum.events import StepPerformed
from hilum.runtime.processor import Memory
from hilum.runtime.state import milliseconds

from .rows import Performed, PerformedRow, Row, performed_key

State = Literal["", "in-progress", "completed", "discontinued"]

#: So many performed steps of one study are remembered.
_MOST = 200
_AS_STEP: Mapping[State, str] = {"in-progress": "started", "completed": "completed", "discontinued": "discontinued"}
#: What a message says of an order or step that no modality takes back.
_STAYS = ("cancelled", "discontinued", "on-hold", "completed")


class Performances:
    """What is performed of the studies of one memory."""

    def __init__(self, memory: Memory[Row]) -> None:
        self._memory = memory
        self._rows: dict[str, PerformedRow] = {}

    def tell(self, event: StepPerformed) -> dict[str, PerformedRow]:
        """Take over what a modality says: by StudyInstanceUID, the rows that are other ones by that. What is older changes nothing."""
        changed: dict[str, PerformedRow] = {}
        for uid in dict.fromkeys(each.study_instance_uid for each in event.scheduled if each.study_instance_uid):
            row = self.row(uid)
            known = row.steps.get(event.sop_instance_uid)
            if known is not None and known.revision >= event.revision:
                continue
            row.steps.pop(event.sop_instance_uid, None)
            row.steps[event.sop_instance_uid] = Performed(
                revision=event.revision,
                state=event.state,
                at_ms=milliseconds(event.changed_at),
                step_ids=tuple(dict.fromkeys(each.step_id for each in event.scheduled if each.study_instance_uid == uid)),
                wrong_entry=event.wrong_entry,
            )
            while len(row.steps) > _MOST:
                del row.steps[next(iter(row.steps))]
            changed[uid] = row
        return changed

    def row(self, study_instance_uid: str) -> PerformedRow:
        """What is performed of a study."""
        if study_instance_uid not in self._rows:
            found = self._memory.get(performed_key(study_instance_uid))
            self._rows[study_instance_uid] = found if isinstance(found, PerformedRow) else PerformedRow()
        return self._rows[study_instance_uid]

    def of_step(self, study_instance_uids: Iterable[str], step_id: str, *, only: bool) -> list[Performed]:
        """What is performed of a scheduled step; of the `only` one of its procedure also what names none."""
        wanted = (step_id, "") if only else (step_id,)
        rows = (self.row(uid) for uid in study_instance_uids)
        found = (each for row in rows for each in row.steps.values() if not each.wrong_entry)
        return [each for each in found if any(named in wanted for named in each.step_ids)]


def folded(performed: Iterable[Performed]) -> State:
    """What several performed steps say together: one in progress tells most, one that was completed more than one that was broken off."""
    states = {each.state for each in performed}
    if "in-progress" in states:
        return "in-progress"
    if "completed" in states:
        return "completed"
    return "discontinued" if states else ""


def step_status(said: str, said_ms: int, performed: Iterable[Performed]) -> str:
    """The status of a scheduled step, of which messages say `said` since `said_ms`, with what is performed of it.

    A message that is later than the end of what was broken off schedules it anew.
    """
    found = list(performed)
    state = folded(found)
    if not state or said in _STAYS:
        return said
    if state == "discontinued" and said_ms > max(each.at_ms for each in found):
        return said
    return _AS_STEP[state]


def is_after_all(said_ms: int, performed: Iterable[Performed]) -> bool:
    """Whether something was performed, and not broken off, after a message said that it is not to be."""
    return any(each.at_ms > said_ms and each.state != "discontinued" for each in performed)
