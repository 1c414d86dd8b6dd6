"""What de-identification keeps of itself: policies by version, pseudonyms that left, links after merges, the way back and who took it."""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

TABLES = """
ALTER TABLE deidentified ADD COLUMN project text NOT NULL DEFAULT '', ADD COLUMN sent_patient text;
COMMENT ON COLUMN deidentified.project IS 'The `domain` of the policy.';
COMMENT ON COLUMN deidentified.sent_patient IS 'The pseudonym of the patient as whose it left; null where nobody knows whether it did.';
CREATE INDEX deidentified_by_patient ON deidentified (project, key_id, sent_patient) WHERE sent_patient IS NOT NULL;

CREATE TABLE deid_policy (
    version  text PRIMARY KEY,
    policy   text NOT NULL,
    content  jsonb NOT NULL,
    since    timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE deid_policy IS 'Each version of a policy by which anything left or was about to: what it says, as it was published.';

CREATE TABLE deid_link (
    project   text NOT NULL,
    key_id    text NOT NULL,
    prior     text NOT NULL,
    surviving text NOT NULL,
    since     timestamptz NOT NULL DEFAULT now(),
    ended_at  timestamptz,
    PRIMARY KEY (project, key_id, prior, surviving, since)
);
COMMENT ON TABLE deid_link IS 'Pseudonyms that are one patient since a merge: what left under the first is of whom the second names.';
CREATE UNIQUE INDEX deid_link_once ON deid_link (project, key_id, prior, surviving) WHERE ended_at IS NULL;

CREATE TABLE deid_reverse (
    project   text NOT NULL,
    pseudonym text NOT NULL,
    kind      text NOT NULL CHECK (kind IN ('patient', 'accession', 'uid')),
    key_id    text NOT NULL,
    sealed    bytea NOT NULL,
    since     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project, pseudonym, kind, key_id)
);
COMMENT ON TABLE deid_reverse IS 'From pseudonyms back, for policies that ask for it; sealed with a key that is not in the database.';

CREATE TABLE deid_lookup (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at        timestamptz NOT NULL DEFAULT now(),
    who       text NOT NULL CHECK (btrim(who) <> ''),
    why       text NOT NULL CHECK (btrim(why) <> ''),
    project   text NOT NULL,
    pseudonym text NOT NULL,
    database_user text NOT NULL DEFAULT session_user
);
COMMENT ON COLUMN deid_lookup.who IS 'The account of the machine on which it was asked.';
COMMENT ON TABLE deid_lookup IS 'Who looked from which pseudonym back, and why: written before the answer, and never changed.';
CREATE FUNCTION deid_lookup_stays() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'deid_lookup is an audit: rows are only added'; END $$;
CREATE TRIGGER deid_lookup_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON deid_lookup
    FOR EACH STATEMENT EXECUTE FUNCTION deid_lookup_stays();
"""


def upgrade() -> None:
    """Add columns and tables."""
    op.execute(TABLES)


def downgrade() -> None:
    """Nobody would know who looked whom up."""
    raise NotImplementedError
