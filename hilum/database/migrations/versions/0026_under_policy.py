"""That a delivery was entered to leave de-identified, who decided that it leaves as it is, and by which settings objects left."""

from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

TABLES = """
ALTER TABLE delivery ADD COLUMN under_policy text, ADD COLUMN identified boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN delivery.under_policy IS
    'The policy that its destination had when it was entered or tried: it does not leave as it is, even if there is none any more.';
COMMENT ON COLUMN delivery.identified IS
    'Somebody decided that it leaves as it is, if its destination has no policy: see identified_decision.';
UPDATE delivery AS d SET under_policy = known.policy
    FROM deidentified AS known WHERE known.delivery_id = d.delivery_id AND d.state IN ('pending', 'parked', 'rejected', 'cancelled');

CREATE TABLE identified_decision (
    delivery_id text NOT NULL,
    destination text NOT NULL,
    policy      text NOT NULL,
    decided_at  timestamptz NOT NULL DEFAULT now(),
    decided_by  text NOT NULL,
    why         text NOT NULL
);
CREATE INDEX identified_decision_by_delivery ON identified_decision (delivery_id, decided_at);
COMMENT ON TABLE identified_decision IS
    'That deliveries which were to leave de-identified, to destinations without a policy now, leave as they are: who decided so, and why.';

CREATE TABLE deid_settings (
    key_id      text NOT NULL,
    accepted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    settings_id text NOT NULL,
    said        jsonb NOT NULL,
    accepted_by text NOT NULL,
    why         text NOT NULL DEFAULT '',
    PRIMARY KEY (key_id, accepted_at)
);
COMMENT ON TABLE deid_settings IS
    'What decides pseudonyms and dates beside policy and key, as a machine first had it or it was accepted: the last of a key holds.';
ALTER TABLE deidentified ADD COLUMN settings_id text;
COMMENT ON COLUMN deidentified.settings_id IS 'By which of deid_settings it was made; null: an earlier release made it.';
"""


def upgrade() -> None:
    """Add the columns and the table."""
    op.execute(TABLES)


def downgrade() -> None:
    """What was to leave de-identified would leave as it is."""
    raise NotImplementedError
