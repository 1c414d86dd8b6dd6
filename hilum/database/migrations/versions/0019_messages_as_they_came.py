"""The bytes of messages: as they came, and as they go out."""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

COLUMNS = """
ALTER TABLE hl7_message ADD COLUMN read_as text, ADD COLUMN raw bytea;
COMMENT ON COLUMN hl7_message.read_as IS 'The codec in which text was read; null for older messages.';
COMMENT ON COLUMN hl7_message.raw IS 'The bytes that came, if text in read_as is not just them and they are not in the object store.';
ALTER TABLE hl7_outgoing
    ADD COLUMN message_id text NOT NULL DEFAULT '', ADD COLUMN content bytea,
    ADD COLUMN bucket text NOT NULL DEFAULT '', ADD COLUMN object_key text NOT NULL DEFAULT '';
COMMENT ON COLUMN hl7_outgoing.message_id IS 'The message that is passed on; empty for any other.';
COMMENT ON COLUMN hl7_outgoing.text IS 'The message, and what is sent unless the next three say otherwise; empty: it cannot be passed on.';
COMMENT ON COLUMN hl7_outgoing.content IS 'What is sent, byte for byte; null: the text, in the character set of the destination.';
COMMENT ON COLUMN hl7_outgoing.bucket IS 'With object_key: where the bytes are that are sent; empty if they are here.';
"""


def upgrade() -> None:
    """Add the columns."""
    op.execute(COLUMNS)


def downgrade() -> None:
    """Remove them."""
    op.execute("ALTER TABLE hl7_message DROP COLUMN read_as, DROP COLUMN raw")
    op.execute("ALTER TABLE hl7_outgoing DROP COLUMN message_id, DROP COLUMN content, DROP COLUMN bucket, DROP COLUMN object_key")
