"""Objects on which a rule could not be evaluated, until other rules have decided on them."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE failed_rule (
    sop_instance_uid    text PRIMARY KEY,
    study_instance_uid  text NOT NULL,
    receipt             text NOT NULL,
    rules               text[] NOT NULL,
    says                text NOT NULL,
    config_version      text NOT NULL,
    failed_at           timestamptz NOT NULL
);
COMMENT ON TABLE failed_rule IS
    'Objects on which a rule could not be evaluated. The other rules have decided; these are asked again under another configuration.';
CREATE INDEX failed_rule_by_study ON failed_rule (study_instance_uid);
"""


def upgrade() -> None:
    """Make the table."""
    op.execute(TABLES)


def downgrade() -> None:
    """Remove it."""
    op.execute("DROP TABLE failed_rule")
