"""Procedure steps as modalities say that they perform them (MPPS)."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE performed_step (
    sop_instance_uid    text PRIMARY KEY,
    revision            int NOT NULL,
    state               text NOT NULL CHECK (state IN ('in-progress', 'completed', 'discontinued')),
    study_instance_uid  text,
    step_id             text,
    station_aet         text,
    modality            text,
    description         text,
    start_date          text,
    start_time          text,
    end_date            text,
    end_time            text,
    reason_code         text,
    wrong_entry         boolean NOT NULL,
    objects             int NOT NULL,
    calling_aet         text NOT NULL,
    began_at            timestamptz NOT NULL,
    changed_at          timestamptz NOT NULL
) WITH (fillfactor = 70);
COMMENT ON TABLE performed_step IS 'Modality Performed Procedure Steps, each as the last event of it says.';
COMMENT ON COLUMN performed_step.wrong_entry IS 'Whether it was discontinued since the wrong entry of the worklist was chosen (110514).';
COMMENT ON COLUMN performed_step.objects IS 'Objects that its series refer to.';
CREATE INDEX performed_step_by_study ON performed_step (study_instance_uid);

CREATE TABLE performed_of (
    sop_instance_uid    text NOT NULL,
    number              int NOT NULL,
    study_instance_uid  text NOT NULL,
    step_id             text NOT NULL,
    procedure_id        text NOT NULL,
    accession_number    text NOT NULL,
    PRIMARY KEY (sop_instance_uid, number)
);
COMMENT ON TABLE performed_of IS 'The scheduled steps that a performed one is for; several in the group case.';
CREATE INDEX performed_of_by_step ON performed_of (study_instance_uid, step_id);
"""


def upgrade() -> None:
    """Make the tables."""
    op.execute(TABLES)


def downgrade() -> None:
    """Remove them."""
    op.execute("DROP TABLE performed_step; DROP TABLE performed_of")
