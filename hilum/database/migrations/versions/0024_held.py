"""Whether what was about to leave was held before its first byte: what is held is not what nobody knows of."""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

COLUMN = """
ALTER TABLE deidentified ADD COLUMN held_at timestamptz;
COMMENT ON COLUMN deidentified.held_at IS
    'When it was held before anything of it left, whenever it was tried; null again once it is tried again.';
COMMENT ON COLUMN deidentified.sent_at IS
    'When the destination said that it has it; null: nobody knows whether it does, or, with held_at, it does not.';
"""


def upgrade() -> None:
    """Add the column."""
    op.execute(COLUMN)


def downgrade() -> None:
    """Take it away."""
    op.execute("ALTER TABLE deidentified DROP COLUMN held_at")
