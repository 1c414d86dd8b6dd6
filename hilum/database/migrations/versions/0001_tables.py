"""The first tables: what came, what is known of it, what is to be delivered, and how far each reader has read."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Rows that are updated soon after they are made leave room in their page (fillfactor), so that an update touches no index.
TABLES = """
CREATE TABLE receipt (
    receipt              text PRIMARY KEY,
    study_instance_uid   text,
    series_instance_uid  text,
    sop_instance_uid     text,
    sop_class_uid        text,
    transfer_syntax_uid  text,
    bucket               text,
    object_key           text,
    size_bytes           bigint,
    sha256               text,
    adapter              text,
    calling_aet          text,
    called_aet           text,
    peer                 text,
    association          text,
    received_at          timestamptz,
    received             boolean NOT NULL DEFAULT false,
    accepted_at          timestamptz,
    findings             jsonb,
    decision             text,
    decided_at           timestamptz,
    delivery_ids         text[],
    expected_deliveries  int GENERATED ALWAYS AS (cardinality(delivery_ids)) STORED,
    config_version       text,
    quarantine_reason    text,
    quarantine_stage     text,
    quarantined_at       timestamptz,
    traceparent          text
) WITH (fillfactor = 60);
COMMENT ON TABLE receipt IS 'One row for each arrival of an object, made by whichever of its events is read first.';
COMMENT ON COLUMN receipt.received IS 'Its received event was read.';
COMMENT ON COLUMN receipt.decision IS 'deliver, duplicate or no-rule; null: undecided, unless it waits in quarantine.';
COMMENT ON COLUMN receipt.quarantine_reason IS 'Why it waits, or waited, for a person: the last of its quarantined events.';
COMMENT ON COLUMN receipt.delivery_ids IS 'The deliveries that the decision asks for: each must have a row in delivery.';
CREATE INDEX receipt_by_instance ON receipt (sop_instance_uid);
CREATE INDEX receipt_by_study ON receipt (study_instance_uid);
CREATE INDEX receipt_by_time ON receipt USING brin (received_at);

CREATE TABLE study (
    study_instance_uid        text PRIMARY KEY,
    patient_id                text,
    issuer_of_patient_id      text,
    patient_name              text,
    patient_birth_date        text,
    patient_sex               text,
    accession_number          text,
    study_id                  text,
    study_date                text,
    study_time                text,
    study_description         text,
    referring_physician_name  text,
    institution_name          text,
    receipt                   text NOT NULL,
    received_at               timestamptz NOT NULL
);
COMMENT ON TABLE study IS 'What the first received instance of each study says of patient and study.';
CREATE INDEX study_by_accession_number ON study (accession_number);
CREATE INDEX study_by_patient_id ON study (patient_id);
CREATE INDEX study_by_date ON study (study_date);
CREATE INDEX study_by_time ON study (received_at);

CREATE TABLE series (
    series_instance_uid    text PRIMARY KEY,
    study_instance_uid     text NOT NULL,
    modality               text,
    series_number          text,
    series_description     text,
    body_part_examined     text,
    protocol_name          text,
    manufacturer           text,
    manufacturer_model_name text,
    station_name           text,
    header                 jsonb,
    receipt                text NOT NULL,
    received_at            timestamptz NOT NULL
);
COMMENT ON TABLE series IS 'What the first received instance of each series says of it, with that instance''s header.';
COMMENT ON COLUMN series.header IS 'DICOM JSON (PS3.18 F.2) of one instance: header -> ''00180060'' -> ''Value'' ->> 0 is its KVP.';
CREATE INDEX series_by_study ON series (study_instance_uid);

CREATE TABLE instance (
    sop_instance_uid     text PRIMARY KEY,
    series_instance_uid  text NOT NULL,
    study_instance_uid   text NOT NULL,
    sop_class_uid        text NOT NULL,
    transfer_syntax_uid  text NOT NULL,
    instance_number      text,
    number_of_frames     text,
    rows                 int,
    columns              int,
    bucket               text NOT NULL,
    object_key           text NOT NULL,
    size_bytes           bigint NOT NULL,
    sha256               text NOT NULL,
    content_date         text,
    content_time         text,
    receipt              text NOT NULL,
    received_at          timestamptz NOT NULL
);
COMMENT ON TABLE instance IS 'One row for each accepted SOP instance: its first accepted receipt, by receive time.';
CREATE INDEX instance_by_series ON instance (series_instance_uid);
CREATE INDEX instance_by_study ON instance (study_instance_uid);

CREATE TABLE quarantine (
    event_id             text PRIMARY KEY,
    receipt              text,
    study_instance_uid   text,
    series_instance_uid  text,
    sop_instance_uid     text,
    stage                text NOT NULL,
    reason               text NOT NULL,
    sentence             text NOT NULL,
    fix                  text NOT NULL,
    found                text NOT NULL DEFAULT '',
    expected             text NOT NULL DEFAULT '',
    quarantined_at       timestamptz NOT NULL,
    input_type           text NOT NULL,
    input_id             text NOT NULL,
    input                bytea NOT NULL,
    state                text NOT NULL DEFAULT 'waiting'
);
COMMENT ON TABLE quarantine IS 'Each event that a stage set aside for a person, with the whole input.';
CREATE INDEX quarantine_by_receipt ON quarantine (receipt);
CREATE INDEX quarantine_by_study ON quarantine (study_instance_uid);
CREATE INDEX quarantine_waiting ON quarantine (quarantined_at) WHERE state = 'waiting';

CREATE TABLE delivery (
    delivery_id          text PRIMARY KEY,
    destination          text NOT NULL,
    receipt              text NOT NULL,
    study_instance_uid   text NOT NULL,
    series_instance_uid  text,
    sop_instance_uid     text NOT NULL,
    sop_class_uid        text,
    transfer_syntax_uid  text,
    bucket               text,
    object_key           text,
    size_bytes           bigint,
    sha256               text,
    rules                text[],
    priority             int NOT NULL DEFAULT 0,
    config_version       text,
    traceparent          text,
    state                text NOT NULL DEFAULT 'pending'
        CHECK (state IN ('pending', 'delivered', 'already_there', 'returned', 'rejected', 'cancelled')),
    received_at          timestamptz,
    created_at           timestamptz NOT NULL DEFAULT now(),
    not_before           timestamptz NOT NULL DEFAULT now(),
    claimed_by           text,
    lease_until          timestamptz,
    attempts             int NOT NULL DEFAULT 0,
    peer_status          text,
    comment              text,
    settled_at           timestamptz
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);
COMMENT ON TABLE delivery IS 'The ledger: the queue of each destination, and the account of what became of each delivery.';
CREATE INDEX delivery_pending ON delivery (destination, priority DESC, not_before) WHERE state = 'pending';
CREATE INDEX delivery_by_study ON delivery (study_instance_uid);
CREATE INDEX delivery_by_instance ON delivery (sop_instance_uid);
CREATE INDEX delivery_by_receipt ON delivery (receipt);

CREATE TABLE outbox (
    id          bigserial PRIMARY KEY,
    topic       text NOT NULL,
    key         text,
    headers     jsonb NOT NULL DEFAULT '{}',
    value       bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
COMMENT ON TABLE outbox IS 'Events that are committed here and not yet on Kafka.';

CREATE TABLE consumer_offset (
    group_name    text NOT NULL,
    topic         text NOT NULL,
    partition     int NOT NULL,
    topic_id      text NOT NULL,
    next_offset   bigint NOT NULL,
    leader_epoch  int NOT NULL DEFAULT -1,
    PRIMARY KEY (group_name, topic, partition)
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE consumer_offset IS 'How far each reader has written a topic into these tables: the next offset it will read.';
"""


def upgrade() -> None:
    """Make the tables."""
    op.execute(TABLES)


def downgrade() -> None:
    """There is nothing before the first tables."""
    raise NotImplementedError
