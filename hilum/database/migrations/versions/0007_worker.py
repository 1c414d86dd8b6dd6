"""Which configuration each worker runs, for `hilum apply` to see."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE worker (
    worker      text PRIMARY KEY,
    role        text NOT NULL,
    host        text NOT NULL,
    version     text NOT NULL,
    refuses     text NOT NULL DEFAULT '',
    says        text NOT NULL DEFAULT '',
    started_at  timestamptz NOT NULL DEFAULT now(),
    seen_at     timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE worker IS
    'The configuration that each worker runs, as it says itself. One that was not seen for half a minute is no longer there.';
COMMENT ON COLUMN worker.version IS 'What it runs; empty: it has not begun.';
COMMENT ON COLUMN worker.refuses IS 'A version that it cannot run; it stays with the one before.';
"""


def upgrade() -> None:
    """Make the table."""
    op.execute(TABLES)


def downgrade() -> None:
    """Remove it."""
    op.execute("DROP TABLE worker")
