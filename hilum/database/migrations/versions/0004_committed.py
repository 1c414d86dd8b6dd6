"""When an arrival was promised to its sender by storage commitment, so that it does not expire."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.execute("ALTER TABLE receipt ADD COLUMN committed_at timestamptz")
    op.execute("COMMENT ON COLUMN receipt.committed_at IS 'Storage commitment was promised for its object: it must not expire.'")


def downgrade() -> None:
    """Remove it."""
    op.execute("ALTER TABLE receipt DROP COLUMN committed_at")
