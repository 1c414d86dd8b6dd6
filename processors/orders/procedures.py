"""Which of an order's procedures and steps a message means, and what it says of them.

A requested procedure is the same one whatever ids it gets: a change of the order that names another id replaces the procedure's, so
that no modality is offered the same examination twice. Only a message that makes an order (HL7 table 0119: NW and its like) adds one.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field, to_builtins

from hilum.hl7.facts import OrderFacts, ProcedureFacts, StepFacts

from .rows import Facts, ProcedureRow, Stamp, Told


class Meant(Struct, kw_only=True):
    """The procedures and steps of an order that a message means, by the keys of their rows."""

    told: Told = field(default_factory=Told)
    steps: set[tuple[str, str]] = field(default_factory=set)
    #: Whether it names a procedure that the order does not have, and nothing says which of several it was.
    unclear: bool = False


def tell_procedures(rows: dict[str, ProcedureRow], said: OrderFacts, stamp: Stamp) -> Meant:
    """Take over what a message says of an order's procedures."""
    adds = said.change == "new" and said.control != "RO"  # RO replaces the order under its own number (HL7 v2.5.1 4.5.1.1)
    meant = Meant()
    keys: dict[int, str] = {}
    for number, each in enumerate(said.procedures):  # what it names surely is not what another of its procedures was before
        key = _named(rows, each, set(keys.values()))
        if key is not None:
            keys[number] = key
    for number, each in enumerate(said.procedures):
        replaced = False
        if number not in keys:
            others = {key: row for key, row in rows.items() if key not in keys.values()}
            found = _replaced(others, each, stamp, adds=adds)
            meant.unclear |= len(found) > 1
            replaced = len(found) == 1
            if not replaced and not each.key and rows and not adds:
                continue  # it says nothing of a single one of them
            keys[number] = found[0] if replaced else each.key
        key = keys[number]
        if key not in rows:
            rows[key] = ProcedureRow(since=None if adds else stamp)
        meant.told += _tell(rows[key], key, each, stamp, replaced=replaced, steps=meant.steps)
    return meant


def same_procedure(rows: Mapping[str, ProcedureRow], key: str, other: Mapping[str, ProcedureRow]) -> str:
    """The key under which a procedure of an order is one of another order, if both turn out to be one."""
    known = next((each for each, row in rows.items() if _answers(each, row, key)), None)
    if known is None and len(rows) == 1 and len(other) == 1:
        return next(iter(rows))
    return key if known is None else known


def _named(rows: Mapping[str, ProcedureRow], said: ProcedureFacts, taken: set[str]) -> str | None:
    """The procedure that is meant by its id, by its accession number where there are several, or since it is the only one."""
    free = {key: row for key, row in rows.items() if key not in taken}
    procedure_id = said.facts.get("procedure_id") or ""
    accession = to_builtins(said.facts.get("accession"))
    if accession is not None and len(rows) > 1:
        found = [key for key, row in free.items() if row.facts.get("accession") == accession]
        if procedure_id:
            found = [key for key in found if procedure_id == free[key].facts.get("procedure_id") or _answers(key, free[key], procedure_id)]
        if len(found) == 1:
            return found[0]
    for key, row in free.items():
        if _answers(key, row, said.key):
            return key
    if len(rows) == 1 and free:
        ((key, row),) = rows.items()
        unnamed = not key and not row.also and not row.facts.get("procedure_id")
        if not said.key or (unnamed and "=" not in said.key):
            return key
    return None


def _replaced(others: Mapping[str, ProcedureRow], said: ProcedureFacts, stamp: Stamp, *, adds: bool) -> list[str]:
    """The procedure that the message's one was before, under another id; several if nothing tells which; none if it is a further one.

    A message that makes an order, and comes after the change that gave it another id, is about the procedure before that.
    """
    if not said.key:
        return []
    found = {key: row for key, row in others.items() if not adds or (row.since is not None and stamp < row.since)}
    if len(found) > 1:
        steps = {each.key for each in said.steps if each.key}
        uid, accession = said.facts.get("study_instance_uid"), to_builtins(said.facts.get("accession"))
        hints = [
            [key for key, row in found.items() if uid and row.facts.get("study_instance_uid") == uid],
            [key for key, row in found.items() if steps & {*row.steps, *row.steps_also}],
            [key for key, row in found.items() if accession and row.facts.get("accession") == accession],
        ]
        return next((each for each in hints if len(each) == 1), list(found))
    return list(found)


def _answers(key: str, row: ProcedureRow, said: str) -> bool:
    return said == key or said in row.also


def _tell(row: ProcedureRow, key: str, said: ProcedureFacts, stamp: Stamp, *, replaced: bool, steps: set[tuple[str, str]]) -> Told:
    if not _answers(key, row, said.key) and said.key:
        row.also = (*row.also, said.key)
    before = row.facts.get("study_instance_uid")
    told = row.facts.tell(said.facts, stamp)
    after = row.facts.get("study_instance_uid")
    if before is not None and after != before:
        row.former = tuple(dict.fromkeys((*row.former, before)))
    replaced = replaced and row.facts.stamp_of("procedure_id") == stamp
    meant = [_step(row, each, said.steps, replaced=replaced) for each in said.steps]
    for step, each in zip(meant, said.steps, strict=True):
        told += row.steps.setdefault(step, Facts()).tell(each.facts, stamp)
        if each.key:
            steps.add((key, step))
    if replaced and meant:  # the steps of the procedure that it was are no more
        for step in [each for each in row.steps if each not in meant]:
            del row.steps[step]
            told.add(True)
    return told


def _step(row: ProcedureRow, said: StepFacts, all_said: tuple[StepFacts, ...], *, replaced: bool) -> str:
    """The key of the step that is meant. One without id is the only one, if there is only one; one of a replaced procedure replaces one."""
    if said.key in row.steps:
        return said.key
    if said.key in row.steps_also:
        return row.steps_also[said.key]
    if not said.key and len(row.steps) == 1:
        return next(iter(row.steps))
    known = {row.steps_also.get(each.key, each.key) for each in all_said}
    free = [each for each in sorted(row.steps) if each not in known]
    unnamed = set(row.steps) == {""} and "" in free and not row.steps[""].get("step_id")
    if said.key and free and (replaced or unnamed):
        row.steps_also[said.key] = free[0]
        return free[0]
    return said.key
