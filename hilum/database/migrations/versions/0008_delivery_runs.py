"""Deliveries that wait for a person, that are asked for by hand, and that a member of a group got; urgent studies; paces."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TABLES = """
ALTER TABLE delivery DROP CONSTRAINT delivery_state_check;
ALTER TABLE delivery ADD CONSTRAINT delivery_state_check
    CHECK (state IN ('pending', 'parked', 'delivered', 'already_there', 'returned', 'rejected', 'cancelled'));
ALTER TABLE delivery
    ADD COLUMN run text NOT NULL DEFAULT '',
    ADD COLUMN round int NOT NULL DEFAULT 0,
    ADD COLUMN abandoned int NOT NULL DEFAULT 0,
    ADD COLUMN member text,
    ADD COLUMN parked_at timestamptz;
COMMENT ON COLUMN delivery.run IS 'The run by which a person asked for it; empty: a rule did.';
COMMENT ON COLUMN delivery.round IS 'How often a person had a delivery tried again that had ended: each end is an event of its own.';
COMMENT ON COLUMN delivery.abandoned IS 'How often a worker claimed it and was never heard of again.';
COMMENT ON COLUMN delivery.member IS 'Which destination got it, if the delivery is to a group.';
CREATE INDEX delivery_by_run ON delivery (run) WHERE run <> '';
CREATE INDEX delivery_parked ON delivery (destination, parked_at) WHERE state = 'parked';

CREATE TABLE delivery_run (
    run          text PRIMARY KEY,
    command      text NOT NULL,
    destination  text NOT NULL,
    study_instance_uid text,
    since        timestamptz,
    until        timestamptz,
    asked_by     text NOT NULL,
    why          text NOT NULL DEFAULT '',
    deliveries   bigint NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE delivery_run IS 'Deliveries that a person asked for: who, when, to where, how many.';

CREATE TABLE urgent_study (
    study_instance_uid  text PRIMARY KEY,
    priority            int NOT NULL,
    since               timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE urgent_study IS 'Studies whose deliveries go first, those that are entered later included.';

CREATE TABLE destination_pace (
    destination  text PRIMARY KEY,
    free_at      timestamptz NOT NULL
);
COMMENT ON TABLE destination_pace IS 'When a destination with a rate limit may be sent the next object, by whichever process.';
"""


def upgrade() -> None:
    """Add the columns and make the tables."""
    op.execute(TABLES)


def downgrade() -> None:
    """Rows that wait for a person cannot be told apart any more."""
    raise NotImplementedError
