"""HL7 messages that came."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE hl7_message (
    message_id               text PRIMARY KEY,
    received_at              timestamptz,
    sender                   text,
    peer                     text,
    sending_application      text,
    sending_facility         text,
    receiving_application    text,
    receiving_facility       text,
    control_id               text,
    code                     text,
    trigger                  text,
    structure                text,
    version                  text,
    character_set            text,
    message_time             text,
    sha256                   text,
    size_bytes               bigint,
    text                     text,
    text_cut                 boolean,
    bucket                   text,
    object_key               text,
    changed_under_control_id boolean,
    findings                 jsonb,
    replays                  text,
    refused                  text,
    sentence                 text,
    acknowledgement          text,
    grammar                  jsonb,
    validated_at             timestamptz
);
COMMENT ON TABLE hl7_message IS 'HL7 messages that came, and what came and was not taken as one.';
COMMENT ON COLUMN hl7_message.text IS 'As Unicode; of a refused one its beginning.';
COMMENT ON COLUMN hl7_message.bucket IS 'With object_key: where the bytes are that came, if text does not tell all of them.';
COMMENT ON COLUMN hl7_message.findings IS 'What was odd when it came.';
COMMENT ON COLUMN hl7_message.replays IS 'The message that is said again by this one, on somebody''s wish.';
COMMENT ON COLUMN hl7_message.refused IS 'Why it was not taken; null for one that was.';
COMMENT ON COLUMN hl7_message.acknowledgement IS 'What a refused one was answered.';
COMMENT ON COLUMN hl7_message.grammar IS 'What the grammar of its version does not allow in it, found after the acknowledgement.';
CREATE INDEX hl7_message_by_time ON hl7_message (received_at DESC, message_id DESC);
CREATE INDEX hl7_message_by_control_id ON hl7_message (control_id) WHERE control_id IS NOT NULL;
"""


def upgrade() -> None:
    """To this version."""
    op.execute(TABLES)


def downgrade() -> None:
    """Remove it."""
    op.execute("DROP TABLE hl7_message")
