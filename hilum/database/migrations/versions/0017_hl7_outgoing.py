"""Messages that Hilum sends, and since when each of their destinations is told."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE hl7_outgoing (
    delivery_id         text PRIMARY KEY,
    number              bigserial NOT NULL,
    destination         text NOT NULL,
    kind                text NOT NULL,
    study_instance_uid  text NOT NULL,
    control_id          text NOT NULL,
    text                text NOT NULL,
    created_at          timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE hl7_outgoing IS 'HL7 messages to destinations; the ledger (delivery) says what became of each.';
COMMENT ON COLUMN hl7_outgoing.number IS 'Messages of one destination go in this order.';
CREATE INDEX hl7_outgoing_in_order ON hl7_outgoing (destination, number);
CREATE INDEX hl7_outgoing_by_time ON hl7_outgoing (created_at);
CREATE INDEX hl7_outgoing_by_study ON hl7_outgoing (study_instance_uid) WHERE study_instance_uid <> '';

CREATE TABLE hl7_destination (
    destination  text PRIMARY KEY,
    since        timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE hl7_destination IS 'Since when each destination of messages is there: it is not told of what was before.';
"""


def upgrade() -> None:
    """Make the tables."""
    op.execute(TABLES)


def downgrade() -> None:
    """Remove them."""
    op.execute("DROP TABLE hl7_outgoing; DROP TABLE hl7_destination")
