"""How `hilum quarantine` answers."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from hilum.cli import app
from hilum.database import connect
from hilum.errors import Misconfigured

WAITING = """
INSERT INTO quarantine (event_id, stage, reason, sentence, fix, quarantined_at, input_type, input_id, input)
VALUES ('q1', 'validate', 'uid-invalid', 'A UID is no UID.', 'Correct it.', now(), 't', 'r1', '')
"""


@pytest.mark.parametrize(("wrong", "fix"), [("truncatd", "Did you mean truncated?"), ("zzz", "Reasons are: unreadable, truncated,")])
def test_a_reason_that_there_is_not_is_refused_with_the_nearest(wrong: str, fix: str) -> None:
    done = CliRunner().invoke(app, ["quarantine", "list", "--reason", wrong])

    assert isinstance(done.exception, Misconfigured)
    assert fix in str(done.exception)


@pytest.mark.system
def test_a_reason_for_which_nothing_waits_does_not_hide_what_waits_for_others(postgres: str) -> None:
    elsewhere = {"HILUM_POSTGRES__DSN": postgres, "HILUM_KAFKA__BOOTSTRAP": "none:1", "HILUM_S3__ENDPOINT": "http://none:1"}
    with connect(postgres) as connection:
        connection.execute(WAITING)

    done = CliRunner().invoke(app, ["quarantine", "list", "--reason", "truncated"], env=elsewhere)

    assert done.stdout == "Nothing waits for that reason; for others: 1 object.\n"
