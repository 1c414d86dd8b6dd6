"""Under which UID a destination has an image that was compressed with loss."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TABLES = """
ALTER TABLE delivery ADD COLUMN sent_as text;
COMMENT ON COLUMN delivery.sent_as IS 'The SOP instance UID under which the destination has it, if that is another.';
CREATE INDEX delivery_by_sent_as ON delivery (sent_as) WHERE sent_as IS NOT NULL;
"""


def upgrade() -> None:
    """Add the column and its index."""
    op.execute(TABLES)


def downgrade() -> None:
    """Nobody would know what a destination has."""
    raise NotImplementedError
