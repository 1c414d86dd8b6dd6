"""Which originals are no longer kept, by which term; and for how long the clocks have run evenly."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE expiry (
    bucket               text NOT NULL,
    object_key           text NOT NULL,
    study_instance_uid   text NOT NULL,
    series_instance_uid  text NOT NULL,
    sop_instance_uid     text NOT NULL,
    sha256               text NOT NULL,
    size_bytes           bigint NOT NULL,
    receipts             text[] NOT NULL,
    days                 int NOT NULL,
    policy               text NOT NULL,
    policy_version       text NOT NULL,
    decided_by           text NOT NULL,
    decided_at           timestamptz NOT NULL DEFAULT now(),
    deleted_at           timestamptz,
    PRIMARY KEY (bucket, object_key)
);
COMMENT ON TABLE expiry IS
    'Originals that are no longer kept, from the decision on; deleted_at is null until their bytes are gone.';
COMMENT ON COLUMN expiry.receipts IS
    'The arrivals of the object that the decision knew. If there is another one, its bytes are here again.';
CREATE INDEX expiry_by_study ON expiry (study_instance_uid);
CREATE INDEX expiry_by_instance ON expiry (sop_instance_uid);
CREATE INDEX expiry_undeleted ON expiry (decided_at) WHERE deleted_at IS NULL;

CREATE TABLE expiry_clock (
    one           boolean PRIMARY KEY DEFAULT true CHECK (one),
    seen_at       timestamptz NOT NULL,
    steady_since  timestamptz NOT NULL
);
COMMENT ON TABLE expiry_clock IS 'Since when the clocks have run without a jump or a long gap; nothing expires in the first day.';
"""


def upgrade() -> None:
    """Make the tables."""
    op.execute(TABLES)


def downgrade() -> None:
    """What is gone could not be told from what is lost any more."""
    raise NotImplementedError
