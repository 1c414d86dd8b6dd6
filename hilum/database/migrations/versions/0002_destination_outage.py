"""Why a destination's queue waits, for those who do not see the process that delivers."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE destination_outage (
    destination  text NOT NULL,
    process      text NOT NULL,
    says         text NOT NULL,
    since        timestamptz NOT NULL DEFAULT now(),
    seen_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (destination, process)
);
COMMENT ON TABLE destination_outage IS
    'Destinations that cannot be used, as each delivering process finds. One that is not seen for a minute is over, or its process is.';
"""


def upgrade() -> None:
    """Make the table."""
    op.execute(TABLES)


def downgrade() -> None:
    """Remove it."""
    op.execute("DROP TABLE destination_outage")
