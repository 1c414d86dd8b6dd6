"""What left de-identified: by which policy and key, under which UIDs."""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

TABLES = """
ALTER TABLE delivery ADD COLUMN policy text, ADD COLUMN policy_version text, ADD COLUMN key_id text,
    ADD COLUMN sent_study text, ADD COLUMN sent_series text, ADD COLUMN sent_sha256 text;
COMMENT ON COLUMN delivery.policy IS 'The policy by which it was de-identified; empty if it went as it is.';
COMMENT ON COLUMN delivery.sent_study IS 'The StudyInstanceUID under which the destination has it, if that is another.';
COMMENT ON COLUMN delivery.sent_series IS 'The SeriesInstanceUID under which the destination has it, if that is another.';
COMMENT ON COLUMN delivery.sent_sha256 IS 'Of the data set that left, if that is not the stored one.';

CREATE TABLE deidentified (
    delivery_id text NOT NULL,
    destination text NOT NULL,
    policy text NOT NULL,
    policy_version text NOT NULL,
    key_id text NOT NULL,
    study_instance_uid text NOT NULL,
    sop_instance_uid text NOT NULL,
    sent_study text NOT NULL,
    sent_series text NOT NULL,
    sent_as text NOT NULL,
    sent_sha256 text,
    begun_at timestamptz NOT NULL DEFAULT now(),
    sent_at timestamptz,
    withdrawn_at timestamptz,
    PRIMARY KEY (delivery_id, policy, policy_version, key_id, sent_as)
);
COMMENT ON TABLE deidentified IS 'Every object that left de-identified, or was about to: a row is written before the first byte leaves.';
COMMENT ON COLUMN deidentified.sent_at IS 'When the destination said that it has it; null: nobody knows whether it does, or it does not.';
COMMENT ON COLUMN deidentified.withdrawn_at IS 'When it was taken back from the destination; null again once it is sent again.';
CREATE INDEX deidentified_by_policy ON deidentified (policy, policy_version, begun_at);
CREATE INDEX deidentified_by_sent_as ON deidentified (sent_as);

CREATE TABLE patient_choice (
    kind     text NOT NULL CHECK (kind IN ('opt-out', 'consent')),
    value    text NOT NULL,
    issuer   text NOT NULL DEFAULT '',
    project  text NOT NULL DEFAULT '',
    since    timestamptz NOT NULL DEFAULT now(),
    said_by  text NOT NULL,
    why      text NOT NULL DEFAULT '',
    ended_at timestamptz,
    ended_by text,
    PRIMARY KEY (kind, value, issuer, project, since)
);
COMMENT ON TABLE patient_choice IS 'Patients, by their identifiers, who opted out of what leaves de-identified, or consented.';
COMMENT ON COLUMN patient_choice.project IS 'The `domain` of policies; empty: all of them.';
CREATE UNIQUE INDEX patient_choice_once ON patient_choice (kind, value, issuer, project) WHERE ended_at IS NULL;
"""


def upgrade() -> None:
    """Add columns and table."""
    op.execute(TABLES)


def downgrade() -> None:
    """Nobody would know what left under which policy."""
    raise NotImplementedError
