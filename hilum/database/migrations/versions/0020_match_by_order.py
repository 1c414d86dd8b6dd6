"""Studies are found by their orders."""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the index. A list of entries that are not in place yet would be read for each of the worklist's steps."""
    op.execute("CREATE INDEX match_by_order ON match USING gin (order_ids) WITH (fastupdate = off) WHERE about = 'study'")


def downgrade() -> None:
    """Remove it."""
    op.execute("DROP INDEX match_by_order")
