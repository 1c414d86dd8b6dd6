"""Why a study is not complete although its time has come, and what lists of deliveries read."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

TABLES = """
ALTER TABLE study_state ADD COLUMN says text;
COMMENT ON COLUMN study_state.says IS 'Why it is not complete although its time has come; null: its time has not come, or it is.';
CREATE INDEX study_state_stuck ON study_state (changed_at) WHERE says IS NOT NULL;

CREATE TABLE spool_backlog (
    spool      text PRIMARY KEY,
    oldest_at  timestamptz,
    seen_at    timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE spool_backlog IS
    'How far behind each spool is, as its publisher says. One that was not heard of for a minute is waited for by nobody.';
COMMENT ON COLUMN spool_backlog.oldest_at IS
    'When its oldest object came that is not published, or was not a moment ago; null: not behind.';

CREATE INDEX delivery_by_change ON delivery (destination, (coalesce(settled_at, parked_at, created_at)) DESC, delivery_id);
CREATE INDEX delivery_failed ON delivery (destination, state) WHERE state IN ('rejected', 'cancelled');
"""


def upgrade() -> None:
    """Add the column and the indexes."""
    op.execute(TABLES)


def downgrade() -> None:
    """Remove them."""
    op.execute("DROP INDEX delivery_by_change, delivery_failed")
    op.execute("DROP TABLE spool_backlog")
    op.execute("ALTER TABLE study_state DROP COLUMN says")
