"""Orders with their steps, patients with their identifiers, and how studies and orders fit."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE patient (
    patient_key    text PRIMARY KEY,
    version        bigint NOT NULL,
    patient_id     text NOT NULL,
    issuer         text NOT NULL DEFAULT '',
    name           text,
    birth_date     text,
    sex            text,
    merged_into    text,
    detail         jsonb NOT NULL,
    notes          jsonb,
    said_at        timestamptz NOT NULL,
    changed_at     timestamptz NOT NULL
) WITH (fillfactor = 70);
COMMENT ON TABLE patient IS 'Patients as messages describe them; who was merged into another stays, and says into whom.';
COMMENT ON COLUMN patient.patient_key IS 'HMAC of the identifier with the site''s secret: what names the patient on Kafka and in logs.';
COMMENT ON COLUMN patient.version IS 'Of two events of one patient the one with the higher version holds.';
COMMENT ON COLUMN patient.detail IS 'The patient as JSON, as in patients.patient.changed.v1.';
CREATE INDEX patient_by_id ON patient (patient_id);
CREATE INDEX patient_merged ON patient (merged_into) WHERE merged_into IS NOT NULL;

CREATE TABLE patient_id (
    value        text NOT NULL,
    issuer       text NOT NULL DEFAULT '',
    patient_key  text NOT NULL,
    type         text NOT NULL DEFAULT '',
    universal_id text NOT NULL DEFAULT '',
    PRIMARY KEY (patient_key, value, issuer)
);
COMMENT ON TABLE patient_id IS 'Every identifier of every patient, former ones not included.';
CREATE INDEX patient_id_by_value ON patient_id (value);

CREATE TABLE scheduled_order (
    order_id          text PRIMARY KEY,
    version           bigint NOT NULL,
    status            text NOT NULL,
    superseded_by     text,
    accession_number  text,
    accession_issuer  text,
    placer_number     text,
    filler_number     text,
    patient_key       text NOT NULL,
    patient_id        text NOT NULL,
    patient_name      text,
    sender            text NOT NULL DEFAULT '',
    detail            jsonb NOT NULL,
    notes             jsonb,
    message_id        text,
    said_at           timestamptz NOT NULL,
    created_at        timestamptz NOT NULL,
    changed_at        timestamptz NOT NULL
) WITH (fillfactor = 70);
COMMENT ON TABLE scheduled_order IS 'Orders (imaging service requests), each as the last event of it says.';
COMMENT ON COLUMN scheduled_order.detail IS 'The order as JSON, as in orders.order.changed.v1: patient, procedures, steps.';
CREATE INDEX scheduled_order_by_accession ON scheduled_order (accession_number);
CREATE INDEX scheduled_order_by_placer ON scheduled_order (placer_number);
CREATE INDEX scheduled_order_by_filler ON scheduled_order (filler_number);
CREATE INDEX scheduled_order_by_patient ON scheduled_order (patient_key);
CREATE INDEX scheduled_order_by_time ON scheduled_order (changed_at);

CREATE TABLE scheduled_step (
    order_id              text NOT NULL,
    procedure_number      int NOT NULL,
    step_number           int NOT NULL,
    status                text NOT NULL,
    study_instance_uid    text NOT NULL,
    procedure_id          text NOT NULL,
    step_id               text NOT NULL,
    accession_number      text,
    patient_id            text NOT NULL,
    patient_name          text,
    modality              text,
    station_ae_titles     text[],
    station_name          text,
    start_date            text,
    start_time            text,
    start_at              timestamptz,
    performing_physician  text,
    changed_at            timestamptz NOT NULL,
    PRIMARY KEY (order_id, procedure_number, step_number)
) WITH (fillfactor = 70);
COMMENT ON TABLE scheduled_step IS 'Scheduled procedure steps: what the worklist is asked for. The rest is in scheduled_order.detail.';
COMMENT ON COLUMN scheduled_step.procedure_number IS 'Place in detail -> ''procedures'', from 0; step_number likewise in its ''steps''.';
CREATE INDEX scheduled_step_open ON scheduled_step (start_date, modality) WHERE status IN ('scheduled', 'arrived', 'ready');
CREATE INDEX scheduled_step_by_study ON scheduled_step (study_instance_uid);
CREATE INDEX scheduled_step_by_accession ON scheduled_step (accession_number);
CREATE INDEX scheduled_step_by_patient ON scheduled_step (patient_id);

CREATE TABLE match (
    about               text NOT NULL CHECK (about IN ('study', 'order')),
    id                  text NOT NULL,
    version             bigint NOT NULL,
    outcome             text NOT NULL,
    "by"                text,
    study_instance_uid  text NOT NULL,
    order_ids           text[] NOT NULL,
    candidates          text[] NOT NULL,
    differences         jsonb NOT NULL,
    coercible           boolean NOT NULL DEFAULT false,
    notes               jsonb,
    cause               text NOT NULL,
    changed_at          timestamptz NOT NULL,
    accepted_version    bigint,
    accepted_by         text,
    accepted_why        text,
    accepted_at         timestamptz,
    PRIMARY KEY (about, id)
) WITH (fillfactor = 70);
COMMENT ON TABLE match IS 'How each study fits its orders, and what became of each order''s images, as the last event of it says.';
COMMENT ON COLUMN match.id IS 'StudyInstanceUID, or order_id.';
COMMENT ON COLUMN match.accepted_version IS 'The version of which a person said that it may be delivered as it is.';
CREATE INDEX match_by_outcome ON match (outcome, changed_at);
CREATE INDEX match_by_study ON match (study_instance_uid);
"""


def upgrade() -> None:
    """Make the tables."""
    op.execute(TABLES)


def downgrade() -> None:
    """Remove them."""
    op.execute("DROP TABLE patient; DROP TABLE patient_id; DROP TABLE scheduled_order; DROP TABLE scheduled_step; DROP TABLE match")
