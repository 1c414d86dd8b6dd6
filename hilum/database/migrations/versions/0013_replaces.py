"""Which deliveries correct an object that their destination may have."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

TABLES = """
ALTER TABLE delivery ADD COLUMN replaces boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN delivery.replaces IS
    'Whether the destination may have another object under this UID, which this one corrects, and no person has looked yet.';
"""


def upgrade() -> None:
    """Add the column; what is open by now goes out as it would have."""
    op.execute(TABLES)


def downgrade() -> None:
    """Remove it."""
    op.execute("ALTER TABLE delivery DROP COLUMN replaces")
