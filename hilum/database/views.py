"""The SQL views: what Hilum promises to SQL users.

A release may add a view, or columns at the end of one, and nothing else: PostgreSQL refuses to replace a view by one that lacks a column.
Columns that hold a DICOM attribute are named by its keyword, in lower case with underscores: `StudyInstanceUID` is `study_instance_uid`.
"""

from __future__ import annotations

import psycopg
from psycopg import sql

from hilum.database.counting import COUNTS
from hilum.database.hl7_views import HL7_VIEWS
from hilum.database.merges import current
from hilum.database.order_views import ORDER_VIEWS
from hilum.database.view import View

#: The account that may read the views and nothing else, if the site has made it.
READER = "hilum_reader"


VIEWS = (
    View(
        name="v_study",
        says="One row for each study of which an instance was accepted. Patient and study are described as in its first received instance.",
        source="""
            FROM study
            LEFT JOIN LATERAL (
                SELECT count(*) AS instances, sum(instance.size_bytes)::bigint AS size_bytes,
                       min(instance.received_at) AS first_received_at, max(instance.received_at) AS last_received_at
                FROM instance WHERE instance.study_instance_uid = study.study_instance_uid AND """
        + COUNTS
        + """
            ) AS instances ON true
            LEFT JOIN LATERAL (
                SELECT count(*) AS series, array_agg(DISTINCT modality ORDER BY modality) FILTER (WHERE modality IS NOT NULL) AS modalities
                FROM series WHERE series.study_instance_uid = study.study_instance_uid
            ) AS series ON true
            LEFT JOIN study_state ON study_state.study_instance_uid = study.study_instance_uid
            LEFT JOIN LATERAL ("""
        + current("study.patient_id", "study.issuer_of_patient_id")
        + """
            ) AS merged ON true""",
        columns="""
            study_instance_uid | study.study_instance_uid | StudyInstanceUID
            patient_id | study.patient_id | PatientID
            issuer_of_patient_id | study.issuer_of_patient_id | IssuerOfPatientID
            patient_name | study.patient_name | PatientName, its component groups joined by `=`
            patient_birth_date | study.patient_birth_date | PatientBirthDate, `YYYYMMDD`
            patient_sex | study.patient_sex | PatientSex
            accession_number | study.accession_number | AccessionNumber; not unique beyond its issuer
            study_id | study.study_id | StudyID
            study_date | study.study_date | StudyDate, `YYYYMMDD`
            study_time | study.study_time | StudyTime, `HHMMSS.FFFFFF`
            study_description | study.study_description | StudyDescription
            referring_physician_name | study.referring_physician_name | ReferringPhysicianName
            institution_name | study.institution_name | InstitutionName
            modalities_in_study | series.modalities | ModalitiesInStudy, an array
            series_count | series.series | series of which an instance was accepted
            instance_count | instances.instances | accepted instances, without those that rejection notes name or that wait in quarantine
            size_bytes | instances.size_bytes | size of their objects
            first_received_at | instances.first_received_at | when the first of them came in
            last_received_at | instances.last_received_at | when the last of them came in
            state | study_state.state | `open` while instances are awaited, or `complete`
            revision | study_state.revision | the last complete revision, 1 at first; 0: none
            reason | study_state.reason | why it is complete, `idle`, `expected`, `by-hand` or `maximum`; what opened it; `rule-failed`
            completed_at | study_state.completed_at | when it was complete last
            waits_because | study_state.says | why it is not complete although its time has come: a rule that cannot be evaluated
            missing_count | study_state.missing | instances that were announced and have not come
            withdrawn_count | study_state.withdrawn | instances that rejection notes name
            current_patient_id | coalesce(nullif(merged.patient_id, ''), study.patient_id) | PatientID after merges
            current_issuer | coalesce(nullif(merged.issuer, ''), study.issuer_of_patient_id) | IssuerOfPatientID after merges
            current_patient_name | coalesce(merged.name, study.patient_name) | PatientName after merges; likewise the next two
            current_patient_birth_date | coalesce(merged.birth_date, study.patient_birth_date) | PatientBirthDate after merges
            current_patient_sex | coalesce(merged.sex, study.patient_sex) | PatientSex after merges
        """,
    ),
    View(
        name="v_series",
        says="One row for each series of which an instance was accepted, described as in its first received instance.",
        source="""
            FROM series
            LEFT JOIN LATERAL (
                SELECT count(*) AS instances, sum(instance.size_bytes)::bigint AS size_bytes,
                       min(instance.received_at) AS first_received_at, max(instance.received_at) AS last_received_at
                FROM instance WHERE instance.series_instance_uid = series.series_instance_uid AND """
        + COUNTS
        + """
            ) AS instances ON true""",
        columns="""
            series_instance_uid | series.series_instance_uid | SeriesInstanceUID
            study_instance_uid | series.study_instance_uid | StudyInstanceUID
            modality | series.modality | Modality
            series_number | series.series_number | SeriesNumber, as text
            series_description | series.series_description | SeriesDescription
            body_part_examined | series.body_part_examined | BodyPartExamined
            protocol_name | series.protocol_name | ProtocolName
            manufacturer | series.manufacturer | Manufacturer
            manufacturer_model_name | series.manufacturer_model_name | ManufacturerModelName
            station_name | series.station_name | StationName
            instance_count | instances.instances | accepted instances, without those that rejection notes name or that wait in quarantine
            size_bytes | instances.size_bytes | size of their objects
            first_received_at | instances.first_received_at | when the first of them came in
            last_received_at | instances.last_received_at | when the last of them came in
            header | series.header | the first received instance's attributes as DICOM JSON (PS3.18 F.2), without pixels and long values
        """,
    ),
    View(
        name="v_instance",
        says="One row for each accepted SOP instance: what its first accepted receipt brought.",
        source="FROM instance",
        columns="""
            sop_instance_uid | | SOPInstanceUID
            series_instance_uid | | SeriesInstanceUID
            study_instance_uid | | StudyInstanceUID
            sop_class_uid | | SOPClassUID
            transfer_syntax_uid | | TransferSyntaxUID of the stored object
            instance_number | | InstanceNumber, as text
            number_of_frames | | NumberOfFrames, as text; null for a single frame
            rows | | Rows
            columns | | Columns
            content_date | | ContentDate, `YYYYMMDD`
            content_time | | ContentTime, `HHMMSS.FFFFFF`
            bucket | | where the object is: the bucket
            object_key | | where the object is: its key in the bucket
            size_bytes | | size of the data set
            sha256 | | SHA-256 of the data set as received, without preamble and File Meta
            receipt | | the receipt that brought it, as in `v_receipt`
            received_at | | when it came in
        """,
    ),
    View(
        name="v_receipt",
        says="One row for each arrival of an object. Its outcome is `deliver`, `no-rule` (no rule asks for it), `duplicate`"
        " (the same object was here before), `returned` (a destination sent back what it got), `waits` (for its study to be complete),"
        " `corrected` (it took the place of one with another header), `ignored` (such a one that is left aside), `withdrawn` (a rejection"
        " note names it), `quarantined` (it waits for a person) or `undecided` (it is on its way).",
        source="FROM receipt",
        columns="""
            receipt | | the id of the arrival
            outcome | coalesce(decision, CASE WHEN quarantine_reason IS NULL THEN 'undecided' ELSE 'quarantined' END) | see above
            sop_instance_uid | | SOPInstanceUID; null if the object has none, as for the other UIDs
            series_instance_uid | | SeriesInstanceUID
            study_instance_uid | | StudyInstanceUID
            sop_class_uid | | SOPClassUID
            transfer_syntax_uid | | TransferSyntaxUID
            adapter | | how it came: `dicom`, `stow`, `folder` or `media`
            calling_aet | | the sender's AE title
            called_aet | | the AE title it called
            peer | | the sender's network address
            association | | the id of the association in Hilum's logs
            received_at | | when it was safe, which is when the sender was told so
            accepted_at | | when it was validated
            findings | | what was noticed and did not stop it: an array of `{code, sentence}`
            decided_at | | when it was routed
            expected_deliveries | | how many deliveries that led to
            config_version | | the version of the settings that it was routed by
            quarantine_reason | | why it waits, or waited before it was released, for a person
            quarantine_stage | | where
            quarantined_at | | since when
            bucket | | where the object is: the bucket
            object_key | | where the object is: its key in the bucket
            size_bytes | | size of the data set
            sha256 | | SHA-256 of the data set as received, without preamble and File Meta
            committed_at | | when storage commitment was first promised for it; null if it never was
            study_findings | | what was noticed when it was held against its study: an array of `{code, sentence}`
        """,
    ),
    View(
        name="v_delivery",
        says="One row for each delivery of an object to a destination: the ledger.",
        source="FROM delivery",
        columns="""
            delivery_id | | the same for the same object to the same destination
            destination | | its name in the settings
            state | | `pending`, `parked` (for a person), or finally `delivered`, `already_there`, `returned`, `rejected` or `cancelled`
            receipt | | the receipt that led to it
            study_instance_uid | | StudyInstanceUID
            series_instance_uid | | SeriesInstanceUID
            sop_instance_uid | | SOPInstanceUID
            rules | | the rules that asked for it
            priority | | higher goes first
            attempts | | how often it was tried
            peer_status | | what the destination answered last, e.g. `0x0000`
            comment | | what Hilum says about it, then the destination's own words, which may identify a patient
            received_at | | when the object came in
            created_at | | when the delivery was entered here
            not_before | | when it may be tried next, if it is pending
            settled_at | | when it had its final state
            size_bytes | | size of the object
            config_version | | the version of the settings that it was planned by
            member | | if the destination is a group: which of its members has it
            run | | the run by which a person asked for it; empty if a rule did
            parked_at | | since when it waits for a person
            round | | how often a person had it tried again after it had ended
            sent_as | | the SOPInstanceUID under which the destination has it, if that is another: an image compressed with loss
            replaces | | whether the destination may have another object under this UID, which this one corrects, and no person has looked
        """,
    ),
    View(
        name="v_delivery_run",
        says="One row for each time that a person asked for deliveries: `hilum send --to`, `hilum deliver resend`.",
        source="FROM delivery_run",
        columns="""
            run | | its id, as in `v_delivery`
            command | | `send` or `resend`
            destination | | where to
            study_instance_uid | | StudyInstanceUID, if it was one study
            since | | of what was delivered from then on
            until | | and before
            asked_by | | the account that asked
            why | | in that person's words
            deliveries | | how many
            created_at | | when
        """,
    ),
    View(
        name="v_quarantine",
        says="One row for each event that a stage set aside for a person.",
        source="FROM quarantine",
        columns="""
            event_id | | the id of the fact that it was set aside
            state | | `waiting` until a person has decided
            stage | | which stage set it aside
            reason | | a code; see [the reasons](reasons.md)
            sentence | | what is wrong
            fix | | what would let it go on
            found | | the value that was found; may identify a patient
            expected | | the value that was expected; may identify a patient
            receipt | | the receipt, as in `v_receipt`
            study_instance_uid | | StudyInstanceUID
            series_instance_uid | | SeriesInstanceUID
            sop_instance_uid | | SOPInstanceUID
            quarantined_at | | since when
        """,
    ),
    View(
        name="v_association",
        says="One row for each DICOM association that a peer asked for, refused ones too, once it is over; summed up, for other ways in.",
        source="FROM association",
        columns="""
            association | | its id, as receipts name it
            calling_aet | | the sender's AE title; empty if it gave none that is one
            called_aet | | the title by which it called Hilum; likewise
            peer | | network address of the sender
            implementation_class_uid | | the sender's implementation (PS3.7 D.3.3.2)
            implementation_version_name | | its version
            max_pdu_bytes | | largest PDU that the sender takes; 0 means no limit
            certificate | | whom its TLS certificate names
            contexts | | JSON: `abstract_syntax`, `transfer_syntaxes`, `result` (PS3.8 9.3.3.2; 0 accepted; -1 none), `transfer_syntax`
            refused | | why it was refused, if it was rejected with result, source and reason (PS3.8 9.3.4); null if it was not
            ended | | how it ended, in words
            objects | | objects stored
            size_bytes | | size of their data sets
            statuses | | how often each status was given to a C-STORE, as JSON
            opened_at | | when the peer connected
            ended_at | | when it was over
            adapter | | `dicom`; or `stow`, `folder`: a sender's requests or files of about a minute; or `media`: an import
            requests | | how many associations, requests or files the row stands for
        """,
    ),
    View(
        name="v_expiry",
        says="Originals that are no longer kept: their deliveries were settled, their retention has passed. What is known of them stays.",
        source="FROM expiry",
        columns="""
            sop_instance_uid | | SOPInstanceUID
            series_instance_uid | | SeriesInstanceUID
            study_instance_uid | | StudyInstanceUID
            bucket | | where the object was: the bucket
            object_key | | where the object was: its key in the bucket
            size_bytes | | its size
            sha256 | | SHA-256 of the data set as received, without preamble and File Meta
            policy | | the term by which it expired, such as `originals_days = 30`
            policy_version | | the version of all terms
            decided_by | | the process that decided it
            decided_at | | since when it has expired
            deleted_at | | when its bytes were gone; null until then
        """,
    ),
    View(
        name="v_destination_backlog",
        says="What waits for each destination. A destination for which nothing waits has no row.",
        source="FROM delivery WHERE state = 'pending' GROUP BY destination",
        columns="""
            destination | | its name in the settings
            pending | count(*) | deliveries that have no final state
            claimed | count(*) FILTER (WHERE lease_until > now()) | of these, in the hands of a worker
            retried | count(*) FILTER (WHERE attempts > 0) | of these, tried before without success
            size_bytes | sum(size_bytes)::bigint | size of their objects
            oldest_received_at | min(coalesce(received_at, created_at)) | when the oldest of them came in
            oldest_age_s | extract(epoch FROM now() - min(coalesce(received_at, created_at)))::float8 | how long that is ago, in seconds
        """,
    ),
    View(
        name="v_destination_outage",
        says="Destinations that cannot be used at present, or have not answered for a while: their queues wait, and nothing fails.",
        source="FROM destination_outage WHERE seen_at > now() - interval '1 minute'",
        columns="""
            destination | | its name in the settings
            process | | the delivering process that finds so
            says | | why
            since | | since when
        """,
    ),
    View(
        name="v_destination_total",
        says="How many deliveries to each destination are in each state. Reads the whole ledger.",
        source="FROM delivery GROUP BY destination, state",
        columns="""
            destination | | its name in the settings
            state | | as in `v_delivery`
            deliveries | count(*) | how many
            size_bytes | sum(size_bytes)::bigint | size of their objects
            last_settled_at | max(settled_at) | when the last of them had its final state
        """,
    ),
    View(
        name="v_performed_step",
        says="Procedure steps as modalities say that they perform them (MPPS).",
        source="FROM performed_step",
        columns="""
            sop_instance_uid | | of the Modality Performed Procedure Step
            state | | `in-progress`, `completed` or `discontinued`
            study_instance_uid | | of the study that it is for; the first one, if it is for several
            step_id | | PerformedProcedureStepID
            station_aet | | PerformedStationAETitle
            modality | | Modality
            description | | PerformedProcedureStepDescription
            start_date | | PerformedProcedureStepStartDate, `YYYYMMDD`
            start_time | | PerformedProcedureStepStartTime
            end_date | | PerformedProcedureStepEndDate
            end_time | | PerformedProcedureStepEndTime
            reason_code | | why it was discontinued, a code of PS3.16 CID 9300
            wrong_entry | | whether the wrong entry of the worklist was chosen (110514)
            objects | | objects that its series refer to
            calling_aet | | who said so
            began_at | | when the first was said of it
            changed_at | | when the last was said of it
        """,
    ),
    *ORDER_VIEWS,
    *HL7_VIEWS,
)


def create_views(connection: psycopg.Connection) -> None:
    """Make each view or bring it up to date, with a comment on it and on each column; let `READER` read them, if there is that account.

    Raises `psycopg.errors.InvalidTableDefinition` if a view would lose or change a column.
    """
    for view in VIEWS:
        name = sql.Identifier(view.name)
        columns = sql.SQL(", ").join(
            sql.SQL("{} AS {}").format(sql.SQL(expression), sql.Identifier(column)) for column, expression, _ in view.described()
        )
        connection.execute(sql.SQL("CREATE OR REPLACE VIEW {} AS SELECT {} {}").format(name, columns, sql.SQL(view.source)))
        connection.execute(sql.SQL("COMMENT ON VIEW {} IS {}").format(name, view.says))
        for column, _, says in view.described():
            connection.execute(sql.SQL("COMMENT ON COLUMN {}.{} IS {}").format(name, sql.Identifier(column), says))
    if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (READER,)).fetchone() is not None:
        names = sql.SQL(", ").join(sql.Identifier(view.name) for view in VIEWS)
        connection.execute(sql.SQL("GRANT SELECT ON {} TO {}").format(names, sql.Identifier(READER)))


def page() -> str:
    """The page about the views, as Markdown."""
    lines = [
        "# SQL views",
        "",
        "What SQL users can rely on: a release may add a view, or columns at the end of one, and nothing else. The tables behind them are",
        "Hilum's own and may change. The same text stands in the database as comments (`\\d+ v_study` in psql).",
        "",
        "A column that holds a DICOM attribute is named by its keyword in lower case; an empty attribute is null. Times are `timestamptz`.",
        f"To give somebody the views and nothing else: `CREATE ROLE {READER} LOGIN PASSWORD '…'`, then `hilum provision`.",
        "`v_study`, `v_series`, `v_delivery` (in `comment`), `v_quarantine`, `v_order`, `v_scheduled_step`, `v_match`, `v_patient` and",
        "`v_hl7_message` hold patient data.",
    ]
    for view in VIEWS:
        lines += [f"\n## `{view.name}`\n", view.says, "", "| column | says |", "| --- | --- |"]
        lines += [f"| `{column}` | {says} |" for column, _, says in view.described()]
    return "\n".join(lines)
