"""Which projects policies had, what was decided when one got another, whom objects name besides, and when what came back left again."""

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE policy_project (
    project text NOT NULL,
    policy  text NOT NULL,
    since   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project, policy)
);
COMMENT ON TABLE policy_project IS
    'Each project (`domain`) that a policy ever had: who opted out of a former one did so of the present one, until somebody decides.';
CREATE INDEX policy_project_by_policy ON policy_project (policy);
INSERT INTO policy_project (policy, project, since)
    SELECT policy, project, min(since) FROM (
        SELECT policy, content->>'domain' AS project, now() AS since FROM deid_policy
        UNION ALL
        SELECT policy, project, begun_at FROM deidentified) AS had
    WHERE project <> '' GROUP BY policy, project;

CREATE TABLE project_decision (
    policy     text NOT NULL,
    former     text NOT NULL,
    project    text NOT NULL,
    carried    boolean NOT NULL,
    decided_at timestamptz NOT NULL DEFAULT now(),
    decided_by text NOT NULL,
    why        text NOT NULL DEFAULT '',
    PRIMARY KEY (policy, former, project)
);
COMMENT ON TABLE project_decision IS
    'That opt-outs of a former project of a policy were carried over to the present one, or hold nothing of it.';

CREATE TABLE named_id (
    study_instance_uid text NOT NULL,
    value        text NOT NULL,
    issuer       text NOT NULL DEFAULT '',
    universal_id text NOT NULL DEFAULT '',
    PRIMARY KEY (study_instance_uid, value, issuer, universal_id)
);
COMMENT ON TABLE named_id IS
    'Identifiers that objects which left de-identified name beside PatientID: by these, too, what is to be taken back is found.';

CREATE INDEX deidentified_by_sent_study ON deidentified (sent_study) WHERE sent_study <> study_instance_uid;
COMMENT ON COLUMN deidentified.withdrawn_at IS
    'When it was taken back from the destination, the last time; with a later begun_at it was sent again since, or was about to be.';
"""


def upgrade() -> None:
    """Add the tables."""
    op.execute(TABLES)


def downgrade() -> None:
    """Who opted out of a former project would no longer be known to have."""
    raise NotImplementedError
