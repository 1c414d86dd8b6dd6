"""Performed procedure steps on the receiver's side (PS3.4 F): what a modality says is durable before it is answered."""

from __future__ import annotations

import errno
from datetime import UTC, datetime
from typing import Any

from hilum import telemetry
from hilum.dicom import uid_is_usable
from hilum.dicom.dataset import read_header
from hilum.dicom.writing import SPECIFIC_CHARACTER_SET
from hilum.events import ProcedureStepChanged
from hilum.procedures import Known, NoRoom, Procedures
from ingest.worklist.performed import NOT_IN_N_SET, STATES, STATUS, Missing, event_of, missing_at_creation, missing_at_end

from .answers import TOO_MANY_REQUESTS, Answer
from .commands import N_CREATE_RQ, Command
from .commitment import Scu
from .negotiation import PERFORMED_STEP, Context
from .worklist_answers import (
    BAD_INSTANCE,
    DUPLICATE_STEP,
    INVALID_VALUE,
    MISSING_ATTRIBUTE,
    MISSING_VALUE,
    NO_MORE_UPDATES,
    NO_SUCH_CLASS,
    NO_SUCH_STEP,
    NOT_ALL_TAKEN,
    PERFORMED,
    STEP_GARBLED,
    STEP_NOT_KEPT,
)

log = telemetry.logger("mpps")


class _Refused(Exception):
    def __init__(self, answer: Answer, keyword: str = "") -> None:
        super().__init__(answer.comment)
        self.answer = answer
        self.keyword = keyword


class Performing:
    """The performed procedure steps of a receiver."""

    def __init__(self, procedures: Procedures) -> None:
        self._procedures = procedures

    def take(self, scu: Scu, command: Command, context: Context, data_set: bytes) -> Answer:
        """Keep what an N-CREATE or N-SET says; the answer to it."""
        told = {"instance": command.sop_instance_uid, "association": scu.association, "calling_aet": scu.calling_aet}
        try:
            event, answer = self._take(scu, command, context, data_set)
            log.info("procedure_step", state=event.state, attempt=event.revision, **told)
        except _Refused as error:
            answer = error.answer
            if error.keyword:
                answer = _naming(answer, error.keyword)
            log.warning("procedure_step_refused", status=f"0x{answer.status:04X}", says=answer.comment, **told)
        except NoRoom:
            answer = TOO_MANY_REQUESTS
        except OSError as error:
            log.error("procedure_step_not_kept", says=error.strerror or "", **told)
            answer = TOO_MANY_REQUESTS if error.errno in (errno.ENOSPC, errno.EDQUOT) else STEP_NOT_KEPT
        telemetry.PROCEDURE_STEPS.labels(status=f"0x{answer.status:04X}").inc()
        return answer

    def _take(self, scu: Scu, command: Command, context: Context, data_set: bytes) -> tuple[ProcedureStepChanged, Answer]:
        if command.sop_class_uid != PERFORMED_STEP:
            raise _Refused(NO_SUCH_CLASS)
        if not uid_is_usable(command.sop_instance_uid):
            raise _Refused(BAD_INSTANCE)
        header = read_header(data_set, context.transfer_syntax, full=True)
        if header.fault:
            raise _Refused(STEP_GARBLED)
        said = {tag: element for tag, element in header.json.items() if tag != SPECIFIC_CHARACTER_SET}
        create = command.field == N_CREATE_RQ
        ignored = set() if create else NOT_IN_N_SET & said.keys()
        taken = {tag: element for tag, element in header.json.items() if tag not in ignored}
        source = {"calling_aet": scu.calling_aet, "called_aet": scu.called_aet, "peer": scu.peer, "association": scu.association}

        def change(known: Known | None) -> tuple[dict[str, Any], ProcedureStepChanged]:
            attributes = _created(known, said) if create else _set(known, {t: each for t, each in said.items() if t not in ignored})
            revision = known.revision + 1 if known is not None else 1
            return attributes, event_of(command.sop_instance_uid, revision, attributes, taken, datetime.now(UTC), **source)

        event = self._procedures.change(command.sop_instance_uid, change)
        assert event is not None
        return event, NOT_ALL_TAKEN if ignored else PERFORMED


def _created(known: Known | None, said: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a new step (F.7.2.1)."""
    if known is not None:
        raise _Refused(DUPLICATE_STEP)
    _refuse_missing(missing_at_creation(said))
    if _status(said) != "in-progress":
        raise _Refused(INVALID_VALUE)
    return said


def _set(known: Known | None, said: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a step, as an N-SET changes them (F.7.2.2): those that it has replace those before, whole."""
    if known is None:
        raise _Refused(NO_SUCH_STEP)
    if known.state != "in-progress":
        raise _Refused(NO_MORE_UPDATES)
    attributes = {**known.attributes, **said}
    state = _status(attributes)
    if state is None:
        raise _Refused(INVALID_VALUE)
    if state != "in-progress":
        _refuse_missing(missing_at_end(attributes, state))
    return attributes


def _status(attributes: dict[str, Any]) -> Any:
    values = attributes.get(STATUS, {}).get("Value") or [""]
    return STATES.get(str(values[0]))


def _refuse_missing(found: Missing | None) -> None:
    if found is not None:
        raise _Refused(MISSING_ATTRIBUTE if found.absent else MISSING_VALUE, found.keyword)


def _naming(answer: Answer, keyword: str) -> Answer:
    return Answer(status=answer.status, comment=f"{answer.comment}: {keyword}"[:64], when=answer.when, means=answer.means)
