"""STOW-RS clients, watched folders and imports leave records as associations do."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; what is there came by associations, one by one."""
    op.execute("ALTER TABLE association ADD COLUMN adapter text NOT NULL DEFAULT 'dicom'")
    op.execute("ALTER TABLE association ADD COLUMN requests bigint NOT NULL DEFAULT 1")


def downgrade() -> None:
    """Remove them."""
    op.execute("ALTER TABLE association DROP COLUMN adapter, DROP COLUMN requests")
