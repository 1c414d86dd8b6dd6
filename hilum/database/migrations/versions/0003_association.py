"""Associations that peers asked for: what was agreed to, and how they ended."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE association (
    association                  text PRIMARY KEY,
    calling_aet                  text NOT NULL,
    called_aet                   text NOT NULL,
    peer                         text NOT NULL,
    implementation_class_uid     text,
    implementation_version_name  text,
    max_pdu_bytes                bigint,
    certificate                  text,
    contexts                     jsonb NOT NULL,
    refused                      text,
    ended                        text NOT NULL,
    objects                      bigint NOT NULL,
    size_bytes                   bigint NOT NULL,
    statuses                     jsonb NOT NULL,
    opened_at                    timestamptz NOT NULL,
    ended_at                     timestamptz NOT NULL
);
COMMENT ON TABLE association IS 'One row for each association that a peer asked for, refused ones too, once it is over.';
CREATE INDEX association_by_sender ON association (calling_aet, ended_at);
CREATE INDEX association_by_time ON association USING brin (ended_at);
"""


def upgrade() -> None:
    """Make the table."""
    op.execute(TABLES)


def downgrade() -> None:
    """Remove it."""
    op.execute("DROP TABLE association")
