"""Identifiers of patients are found however they are written: who opted out of what leaves de-identified must not leave by a space."""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

#: Python decides what is equal (`hilum.identity`); this finds all that may be: without case, spaces, punctuation and what cannot be seen.
FINDING = r"""
CREATE FUNCTION loose_id(value text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN lower(regexp_replace(normalize(value, NFKC),
        U&'[\0001-\002F\003A-\0040\005B-\0060\007B-\00A0\00AD\1680\2000-\200F\2028-\202F\205F-\206F\3000\FEFF]', '', 'g'));
COMMENT ON FUNCTION loose_id IS 'A PatientID without case, spaces and punctuation: finds all that may be equal.';
CREATE INDEX patient_id_loose ON patient_id (loose_id(value));
CREATE INDEX study_loose ON study (loose_id(patient_id));
CREATE INDEX patient_choice_loose ON patient_choice (loose_id(value)) WHERE ended_at IS NULL;
"""


def upgrade() -> None:
    """Add function and indexes."""
    op.execute(FINDING)


def downgrade() -> None:
    """Take them away."""
    op.execute("DROP INDEX patient_choice_loose, study_loose, patient_id_loose; DROP FUNCTION loose_id(text)")
