"""Studies are found by their orders."""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the index."""
    op.execute("CREATE INDEX match_by_order ON match USING gin (order_ids) WHERE about = 'study'")


def downgrade() -> None:
    """Remove it."""
    op.execute("DROP INDEX match_by_order")
