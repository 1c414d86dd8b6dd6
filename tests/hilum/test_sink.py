from pathlib import Path

import pytest

from hilum.errors import Misconfigured, TryAgain
from hilum.settings import load
from hilum.sink import sink_of, sinks_of, step
from sinks.archive import Archive
from sinks.dicom import Dicom

PACS = {"type": "dicom", "host": "10.1.2.3", "port": 104, "aet": "PACS"}


def test_the_type_names_the_module() -> None:
    settings = load(flags={"destinations.pacs": PACS, "destinations.archive.type": "archive"}, environment={}).settings

    sinks = sinks_of(settings)

    assert isinstance(sinks["pacs"], Dicom)
    assert isinstance(sinks["archive"], Archive)
    assert (sinks["pacs"].host, sinks["pacs"].port, sinks["pacs"].workers) == ("10.1.2.3", 104, 1)


def test_values_from_the_environment_are_text_and_fit() -> None:
    assert sink_of("pacs", PACS | {"port": "104", "idle_s": "2.5"}) == sink_of("pacs", PACS | {"idle_s": 2.5})


def test_a_secret_is_read_from_the_file_that_its_key_names(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("hidden\n")
    table = {"type": "archive", "bucket": "copies", "endpoint": "http://127.0.0.1:9", "access_key": "a"}

    sink = sink_of("copy", table | {"secret_key_file": str(tmp_path / "key")})

    assert isinstance(sink, Archive)
    assert sink.secret_key == "hidden"


def test_a_secrets_file_that_is_not_there_is_named_by_its_key() -> None:
    with pytest.raises(Misconfigured, match=r"destinations\.copy\.secret_key_file names a file that cannot be read here"):
        sink_of("copy", {"type": "archive", "secret_key_file": "/nowhere"})


def test_a_destination_without_a_type_is_refused() -> None:
    with pytest.raises(Misconfigured, match=r"destinations\.pacs has no `type`\. Set it to one of: archive, dicom, "):
        sink_of("pacs", {"host": "10.1.2.3"})


def test_an_unknown_type_is_refused_with_the_nearest() -> None:
    with pytest.raises(Misconfigured, match=r"there is no destination type 'dicon'\. Did you mean dicom\?"):
        sink_of("pacs", PACS | {"type": "dicon"})


def test_an_unknown_key_is_refused_with_the_nearest() -> None:
    with pytest.raises(Misconfigured, match=r"There is no setting destinations\.pacs\.prot\. Did you mean port\?"):
        sink_of("pacs", PACS | {"prot": 104})


def test_a_missing_key_is_named() -> None:
    with pytest.raises(Misconfigured, match=r"destinations\.pacs\.host is missing\. Set it: text: a name or an address\."):
        sink_of("pacs", {"type": "dicom", "port": 104, "aet": "PACS"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("port", 0),
        ("port", "ct"),
        ("host", ""),
        ("aet", "LONGER_THAN_16_CHARACTERS"),
        ("aet", "  "),
        ("calling_aet", "A\\B"),
        ("group_by", "series"),
        ("workers", 0),
        ("max_attempts", 0),
        ("retry_max_s", -4),
        ("connect_timeout_s", 0),
        ("idle_s", -1),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_its_key(key: str, value: object) -> None:
    with pytest.raises(Misconfigured, match=rf"^destinations\.pacs\.{key} cannot be .*Allowed: "):
        sink_of("pacs", PACS | {key: value})


def test_mistakes_of_several_destinations_are_said_at_once() -> None:
    settings = load(flags={"destinations.a": PACS | {"port": 0, "hst": "x"}, "destinations.b": {"type": "dicon"}}, environment={}).settings

    with pytest.raises(Misconfigured, match=r"(?s)3 mistakes.*destinations\.a\.port cannot be 0.*destinations\.a\.hst.*destinations\.b"):
        sinks_of(settings)


def test_a_secret_that_does_not_fit_is_not_shown() -> None:
    with pytest.raises(Misconfigured, match=r"destinations\.copy\.secret_key cannot be what it is\.") as stop:
        sink_of("copy", {"type": "archive", "bucket": "copies", "secret_key": [7331]})

    assert "7331" not in str(stop.value)


def test_a_step_that_fails_is_told_in_words() -> None:
    with step("connection") as trying:
        raise TryAgain("Nobody is there.", fix="Start it.")

    assert (trying.done.name, trying.done.ok, trying.done.says, trying.done.fix) == ("connection", False, "Nobody is there.", "Start it.")


def test_a_step_that_fails_unforeseen_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError), step("connection"):
        raise ZeroDivisionError
