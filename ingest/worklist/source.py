"""Which steps wait, as the database has them: those that neither the order, nor a modality, nor images, nor age has taken off the list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec
import psycopg

from hilum.database import AWAY, away, connect
from hilum.errors import Misconfigured
from hilum.order_events import Order
from hilum.settings import Settings

# Images take a step off the list if they are of its procedure: by StudyInstanceUID, also one that it had before; or since their study fits
# its order by accession number, where that has no other procedure of this modality. Those that were made by the wrong entry of the list
# (110514) are of another patient.
# An order that modalities alone have ended has steps of which messages say that they wait: these leave the list as `worklist.leaves` says.
_OPEN = """
    SELECT s.order_id, s.procedure_number, s.step_number, o.version, s.study_instance_uid, s.step_id
    FROM scheduled_step s JOIN scheduled_order o USING (order_id)
    WHERE s.status IN ('scheduled', 'arrived', 'ready') AND o.superseded_by IS NULL
        AND (o.status IN ('scheduled', 'arrived', 'in-progress')
            OR (o.detail ? 'performed' AND o.status IN ('completed', 'discontinued')))
        AND coalesce(s.start_at, o.changed_at) > now() - make_interval(secs => %(keep_s)s)
        AND NOT EXISTS (
            SELECT FROM performed_of p JOIN performed_step t USING (sop_instance_uid)
            WHERE p.study_instance_uid = s.study_instance_uid AND p.step_id = s.step_id AND NOT t.wrong_entry AND t.state = ANY(%(states)s))
        AND NOT (%(images)s AND EXISTS (
            SELECT FROM (
                SELECT s.study_instance_uid AS uid
                UNION ALL SELECT jsonb_array_elements_text(o.detail -> 'procedures' -> s.procedure_number -> 'former_uids')
                UNION ALL SELECT m.id FROM match m
                WHERE m.about = 'study' AND m.order_ids @> ARRAY[s.order_id] AND m.outcome IN ('matched', 'mismatched')
                    AND NOT m.differences @> '[{"attribute": "PatientID"}]'
                    AND NOT EXISTS (
                        SELECT FROM scheduled_step other WHERE other.order_id = s.order_id
                            AND other.procedure_number <> s.procedure_number AND other.modality IS NOT DISTINCT FROM s.modality)) AS own
            JOIN study_state st ON st.study_instance_uid = own.uid JOIN series ON series.study_instance_uid = own.uid
            WHERE st.state = 'complete' AND (s.modality IS NULL OR series.modality = s.modality)
                AND (EXISTS (
                        SELECT FROM performed_of p JOIN performed_step t USING (sop_instance_uid)
                        WHERE p.study_instance_uid = s.study_instance_uid AND p.step_id = s.step_id AND NOT t.wrong_entry)
                    OR NOT EXISTS (
                        SELECT FROM performed_of p JOIN performed_step t USING (sop_instance_uid)
                        WHERE p.study_instance_uid = st.study_instance_uid AND t.wrong_entry))))
"""
_ORDERS = "SELECT order_id, version, detail::text FROM scheduled_order WHERE order_id = ANY (%s)"
_CHUNK = 500


class Open(NamedTuple):
    """A step that waits."""

    order_id: str
    procedure: int
    step: int
    #: Of the order.
    version: int
    study_instance_uid: str
    step_id: str

    @property
    def id(self) -> str:
        """Names the step among all."""
        return f"{self.order_id}/{self.procedure}/{self.step}"


def states_that_end(leaves: Iterable[str]) -> tuple[str, ...]:
    """States of performed steps that take their scheduled ones off the list, as `worklist.leaves` says."""
    if "started" in leaves:
        return ("in-progress", "completed", "discontinued")
    return ("completed", "discontinued") if "completed" in leaves else ()


class Source:
    """The orders in the database, on a connection of its own that is opened again after an outage."""

    def __init__(self, settings: Settings) -> None:
        self._dsn = settings.postgres.dsn
        terms = settings.worklist
        self._values = {
            "keep_s": terms.keep_h * 3600,
            "states": list(states_that_end(terms.leaves)),
            "images": "images" in terms.leaves,
        }
        self._connection: psycopg.Connection | None = None

    def open(self) -> list[Open]:
        """The steps that wait. Raises `TryAgain` while PostgreSQL is away, `Misconfigured` if it lacks the tables."""
        return [Open(*row) for row in self._rows(_OPEN, self._values)]

    def orders(self, order_ids: Iterable[str]) -> Mapping[str, Order]:
        """These orders, as they are now. Raises as `open`."""
        ids = sorted(set(order_ids))
        found: dict[str, Order] = {}
        for at in range(0, len(ids), _CHUNK):
            for order_id, _, detail in self._rows(_ORDERS, (ids[at : at + _CHUNK],)):
                found[str(order_id)] = msgspec.json.decode(str(detail), type=Order)
        return found

    def close(self) -> None:
        """Close the connection; it is opened again when needed."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _rows(self, query: str, values: Mapping[str, Any] | tuple[Any, ...]) -> list[tuple[Any, ...]]:
        try:
            if self._connection is None or self._connection.closed:
                self._connection = connect(self._dsn, name="hilum worklist")
            return self._connection.execute(query.encode(), values).fetchall()
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
            raise Misconfigured("database-tables", "The database lacks tables of this release.", fix="Run `hilum provision`.") from None
        except AWAY as error:
            self.close()
            raise away(self._dsn, error) from None
