"""What route says of studies: whether each is complete, and which instances rejection notes name."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE study_state (
    study_instance_uid  text PRIMARY KEY,
    step                int NOT NULL,
    state               text NOT NULL CHECK (state IN ('open', 'complete')),
    revision            int NOT NULL,
    reason              text,
    instances           int NOT NULL,
    new                 int NOT NULL,
    missing             int NOT NULL,
    withdrawn           int NOT NULL,
    changed_at          timestamptz NOT NULL,
    completed_at        timestamptz
) WITH (fillfactor = 70);
COMMENT ON TABLE study_state IS 'Whether each study is complete, as route said last.';
COMMENT ON COLUMN study_state.step IS 'Grows with each opening and each completion, so that the latest of both counts.';
COMMENT ON COLUMN study_state.revision IS 'The last complete revision; 0: none.';
CREATE INDEX study_state_open ON study_state (changed_at) WHERE state = 'open';

CREATE TABLE withdrawn (
    sop_instance_uid    text PRIMARY KEY,
    study_instance_uid  text NOT NULL,
    note                text NOT NULL,
    code                text NOT NULL,
    withdrawn_at        timestamptz NOT NULL
);
COMMENT ON TABLE withdrawn IS 'Instances that a rejection note names, whether they are here or not yet.';
CREATE INDEX withdrawn_by_study ON withdrawn (study_instance_uid);

ALTER TABLE receipt ADD COLUMN study_findings jsonb;
COMMENT ON COLUMN receipt.study_findings IS 'What was noticed when it was held against its study.';
COMMENT ON COLUMN receipt.decision IS 'The furthest of its decisions; null: undecided, unless it waits in quarantine.';
"""


def upgrade() -> None:
    """Make the tables."""
    op.execute(TABLES)


def downgrade() -> None:
    """Remove them."""
    op.execute("DROP TABLE study_state; DROP TABLE withdrawn; ALTER TABLE receipt DROP COLUMN study_findings")
