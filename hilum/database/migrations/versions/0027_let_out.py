"""How much of objects leaves for each destination that ever had a policy, as it was first or was accepted."""

from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE let_out (
    seq         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    destination text NOT NULL,
    member      text NOT NULL DEFAULT '',
    accepted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    said_id     text NOT NULL,
    said        jsonb NOT NULL,
    accepted_by text NOT NULL,
    why         text NOT NULL DEFAULT ''
);
CREATE INDEX let_out_by_destination ON let_out (destination, member, seq);
COMMENT ON COLUMN let_out.seq IS 'Which row came last; clocks can be wrong.';
COMMENT ON COLUMN let_out.member IS 'Of a group: the member for which it was accepted that this leaves by way of the group; else empty.';
COMMENT ON TABLE let_out IS
    'What decides how much leaves for a destination (policy, consent), as a machine first had it or it was accepted: the last one holds.';
"""


def upgrade() -> None:
    """Add the table."""
    op.execute(TABLES)


def downgrade() -> None:
    """Nobody would know what was let out."""
    raise NotImplementedError
