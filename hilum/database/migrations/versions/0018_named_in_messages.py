"""The patients and orders that HL7 messages name."""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

COLUMNS = """
ALTER TABLE hl7_message ADD COLUMN patient_ids text[], ADD COLUMN order_numbers text[];
COMMENT ON COLUMN hl7_message.patient_ids IS 'Identifiers in PID-3, PID-2, MRG-1 and MRG-4; null for older messages.';
COMMENT ON COLUMN hl7_message.order_numbers IS 'Placer, filler and accession numbers, wherever the message has them.';
CREATE INDEX hl7_message_by_patient ON hl7_message USING gin (patient_ids);
CREATE INDEX hl7_message_by_order ON hl7_message USING gin (order_numbers);
"""


def upgrade() -> None:
    """Add the columns."""
    op.execute(COLUMNS)


def downgrade() -> None:
    """Remove them."""
    op.execute("ALTER TABLE hl7_message DROP COLUMN patient_ids, DROP COLUMN order_numbers")
