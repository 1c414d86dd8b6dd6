"""The SQL views of orders, steps, patients and matches; `hilum.database.views` has all."""

from __future__ import annotations

from hilum.database.view import View

ORDER_VIEWS = (
    View(
        name="v_order",
        says="One row for each order that messages told of, as it is now.",
        source="""
            FROM scheduled_order AS o LEFT JOIN match AS m ON m.about = 'order' AND m.id = o.order_id
            LEFT JOIN LATERAL (
                SELECT CASE WHEN bool_or(t.state = 'in-progress') THEN 'in-progress' WHEN bool_or(t.state = 'completed') THEN 'completed'
                            WHEN count(*) > 0 THEN 'discontinued' END AS state
                FROM scheduled_step AS s JOIN performed_of AS p USING (study_instance_uid, step_id)
                    JOIN performed_step AS t USING (sop_instance_uid)
                WHERE s.order_id = o.order_id AND NOT t.wrong_entry
            ) AS performed ON true
            WHERE o.superseded_by IS NULL""",
        columns="""
            order_id | o.order_id | its id in events
            status | o.status | `scheduled`, `arrived`, `in-progress`, `completed`, `on-hold`, `discontinued`, `cancelled`; MPPS counts
            accession_number | o.accession_number | AccessionNumber; null if it has none that fits into SH
            accession_issuer | o.accession_issuer | who assigned it, if that is known
            placer_number | o.placer_number | ORC-2
            filler_number | o.filler_number | ORC-3
            patient_id | o.patient_id | PatientID, after merges
            patient_name | o.patient_name | PatientName
            sender | o.sender | who said so last
            images | coalesce(m.outcome, 'awaited') | `awaited`, `imaged`, `no-images` (none within the window) or `order-cancelled`
            detail | o.detail | all of it, as JSON: patient, procedures, steps
            notes | o.notes | what was noticed: an array of `{code, sentence}`
            said_at | o.said_at | when the newest of it was said, by the sender's clock
            created_at | o.created_at | when it was first told of
            changed_at | o.changed_at | when it changed last
            performed | performed.state | what modalities say of its steps (MPPS): `in-progress`, `completed`, `discontinued` or null
        """,
    ),
    View(
        name="v_scheduled_step",
        says="One row for each scheduled procedure step of an order, with what modalities say of it.",
        source="""
            FROM scheduled_step AS s JOIN scheduled_order AS o USING (order_id)
            LEFT JOIN LATERAL (
                SELECT t.state, t.sop_instance_uid FROM performed_of AS p JOIN performed_step AS t USING (sop_instance_uid)
                WHERE p.study_instance_uid = s.study_instance_uid AND p.step_id = s.step_id AND NOT t.wrong_entry
                ORDER BY t.state = 'in-progress' DESC, t.changed_at DESC LIMIT 1
            ) AS performed ON true
            WHERE o.superseded_by IS NULL""",
        columns="""
            order_id | s.order_id | its order
            study_instance_uid | s.study_instance_uid | StudyInstanceUID of its requested procedure
            procedure_id | s.procedure_id | RequestedProcedureID
            step_id | s.step_id | ScheduledProcedureStepID
            status | s.status | as the order says: `scheduled`, `arrived`, `ready`, `started`, `completed`, `discontinued` or `cancelled`
            performed | performed.state | as the last modality says (MPPS): `in-progress`, `completed` or `discontinued`; null if none did
            performed_by | performed.sop_instance_uid | its performed procedure step
            accession_number | s.accession_number | AccessionNumber
            patient_id | s.patient_id | PatientID
            modality | s.modality | Modality
            station_ae_titles | s.station_ae_titles | ScheduledStationAETitle, an array
            start_at | s.start_at | when it starts
            changed_at | s.changed_at | when the order changed last
        """,
    ),
    View(
        name="v_match",
        says="One row for each study that was held against orders.",
        source="FROM match WHERE about = 'study'",
        columns="""
            study_instance_uid | | StudyInstanceUID
            outcome | | `matched`, `mismatched`, `unmatched`, `no-order`, `order-cancelled` or `withdrawn`
            found_by | "by" | `accession-number` or `study-instance-uid`
            order_ids | | its orders
            candidates | | orders that might be its
            differences | | attributes that differ: an array of `{attribute, ordered, found}`
            notes | | what was noticed: an array of `{code, sentence}`
            cause | | why it changed last: `images`, `order`, `patient` or `time`
            accepted | coalesce(accepted_version = version, false) | whether a person said that it may be delivered as it is
            changed_at | | when it changed last
            coercible | | whether what differs is just what `coerce` of its sender sets right on the way out
        """,
    ),
    View(
        name="v_patient",
        says="One row for each patient that messages told of; of one that was merged, who it is now.",
        source="FROM patient AS p LEFT JOIN patient AS s ON s.patient_key = p.merged_into",
        columns="""
            patient_id | p.patient_id | the identifier by which it is known
            issuer | p.issuer | who assigned it
            patient_name | p.name | PatientName
            patient_birth_date | p.birth_date | PatientBirthDate, `YYYYMMDD`
            patient_sex | p.sex | PatientSex
            current_patient_id | coalesce(s.patient_id, p.patient_id) | the identifier of who it is after merges
            current_issuer | coalesce(s.issuer, p.issuer) | who assigned that one
            detail | p.detail | all of it, as JSON: identifiers, former and linked ones
            said_at | p.said_at | when the newest of it was said, by the sender's clock
            changed_at | p.changed_at | when it changed last
        """,
    ),
)
