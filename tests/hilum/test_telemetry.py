from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from hilum import telemetry
from hilum.errors import Misconfigured
from hilum.settings import Log, Settings

PATIENT = "Secret^Name"


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    telemetry.configure(Settings())
    logging.root.handlers[:] = handlers


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_log_line_is_json_with_time_level_part_and_event(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.logger("spool").info("object_stored", instance="1.2.840.113619.2", size_bytes=528_000)

    [line] = lines(capsys)
    assert line.pop("time").endswith("Z")
    assert line == {"level": "info", "part": "spool", "event": "object_stored", "instance": "1.2.840.113619.2", "size_bytes": 528_000}


@pytest.mark.parametrize(
    "fields",
    [
        {"patient": PATIENT},  # a field that nobody declared
        {"study": PATIENT},  # a declared one with something else in it
        {"stage": PATIENT},
        {"calling_aet": "a name longer than an AE title"},
        {"topics": ["imaging", PATIENT]},
        {PATIENT: 1},
    ],
)
def test_what_is_not_known_to_be_safe_is_left_out_and_only_its_field_is_named(
    capsys: pytest.CaptureFixture[str], fields: dict[str, Any]
) -> None:
    telemetry.logger("test").info("something_happened", **fields)

    [line] = lines(capsys)
    [field] = fields
    assert line["withheld"] == ["unnamed" if field == PATIENT else field]
    assert PATIENT not in json.dumps(line)
    assert "longer" not in json.dumps(line)


def test_an_event_that_is_no_fixed_name_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.logger("test").info(f"received {PATIENT}")

    [line] = lines(capsys)
    assert (line["event"], line["withheld"]) == ("unnamed", ["event"])


def failure() -> Exception:
    try:
        raise KeyError(PATIENT)
    except KeyError as error:
        return error
    raise AssertionError


def test_an_unforeseen_exception_is_told_by_its_type_and_place(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.logger("test").error("stage_failed", error=failure())

    [line] = lines(capsys)
    assert line["error"].startswith("KeyError at hilum/test_telemetry.py:")
    assert PATIENT not in json.dumps(line)


def test_an_exception_that_is_being_handled_is_told_without_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise failure()
    except KeyError:
        telemetry.logger("test").exception("stage_failed")

    [line] = lines(capsys)
    assert line["error"].startswith("KeyError at ")
    assert PATIENT not in json.dumps(line)


def test_an_error_of_hilum_is_told_in_its_own_words() -> None:
    error = Misconfigured("port-taken", "Port 11112 is taken.", fix="Set dicom.port to another one.")

    assert telemetry.described(error) == "Port 11112 is taken. Set dicom.port to another one."


def test_a_library_says_that_it_logged_but_not_what(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure(Settings())
    logging.getLogger("pynetdicom.acse").warning("Patient is %s", PATIENT)

    [line] = lines(capsys)
    assert (line["event"], line["library"]) == ("library_logged", "pynetdicom.acse")
    assert PATIENT not in json.dumps(line)


def test_a_kafka_client_that_repeats_itself_is_heard_once(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure(Settings())
    for _ in range(50):
        logging.getLogger("hilum.kafka").error("FAIL [consumer-1]: Connect to 127.0.0.1:1 failed: Connection refused")

    [line] = lines(capsys)
    assert line["says"].startswith("FAIL [consumer-1]")


def test_the_log_level_of_the_settings_counts(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure(Settings(log=Log(level="WARNING")))
    telemetry.logger("test").info("something_happened")
    telemetry.logger("test").warning("something_happened")

    assert [line["level"] for line in lines(capsys)] == ["warning"]


def test_no_metric_has_a_label_that_could_hold_a_uid_an_ae_title_or_a_patient() -> None:
    labels = {label for metric in telemetry.metrics() for label in metric._labelnames}

    assert labels <= {"stage", "role", "reason", "destination", "sink", "state", "outcome", "status", "adapter", "kind"}


def test_every_metric_is_named_and_explained() -> None:
    names = [metric._name for metric in telemetry.metrics()]

    assert len(names) == len(set(names)) > 5
    assert all(name.startswith("hilum_") for name in names)
    assert all(metric._documentation.endswith(".") for metric in telemetry.metrics())
