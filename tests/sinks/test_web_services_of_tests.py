"""The STOW-RS service that the tests send to answers as the services that it plays, and the profiles know what that means."""

from __future__ import annotations

import http.client
from typing import Any

import pytest

from hilum.profiles import names, profile
from tests.misbehaving_web import (
    Answer,
    Door,
    Service,
    at_first,
    forgets,
    like_azure,
    like_google,
    refuses,
    refuses_without_a_reason,
    service,
    stores,
    warns,
)
from tests.stow_client import TO_DICOM, Answered, a_body, a_file

SERVICES = [name for name in names() if "stow" in profile(name).types]


def post(to: Service, *files: bytes, chunked: bool = False, **headers: str) -> Answered:
    connection = http.client.HTTPConnection("127.0.0.1", to.port, timeout=60)
    body: Any = a_body(*files)
    if chunked:
        body = iter([body[:100], body[100:]])
    connection.request("POST", "/dicom-web/studies", body, {"Content-Type": TO_DICOM, **headers}, encode_chunked=chunked)
    answered = Answered(connection.getresponse())
    connection.close()
    return answered


def get(to: Service, path: str) -> Answered:
    connection = http.client.HTTPConnection("127.0.0.1", to.port, timeout=60)
    connection.request("GET", f"/dicom-web/{path}")
    answered = Answered(connection.getresponse())
    connection.close()
    return answered


@pytest.mark.parametrize("chunked", [False, True])
def test_what_is_stored_is_named(chunked: bool) -> None:
    headers = {"Transfer-Encoding": "chunked"} if chunked else {}
    with service(stores) as there:
        answered = post(there, a_file(SOPInstanceUID="2.25.3"), a_file(SOPInstanceUID="2.25.4"), chunked=chunked, **headers)

        assert (answered.status, answered.referenced, answered.failed) == (200, ["2.25.3", "2.25.4"], [])
        assert set(there.kept) == {"2.25.3", "2.25.4"}


def test_an_instance_that_azure_has_is_a_conflict_with_a_reason_that_its_profile_knows() -> None:
    with service(like_azure) as there:
        post(there, a_file())
        answered = post(there, a_file())

    [(_, reason)] = answered.failed
    azure = profile("azure")
    assert (answered.status, azure.http(answered.status), azure.reason(reason)) == (409, "conflict", "already_there")


def test_another_file_with_the_same_uids_is_a_conflict_to_be_asked_about() -> None:
    with service(like_google) as there:
        post(there, a_file())
        again, other = post(there, a_file()), post(there, a_file(StudyDescription="other"))

    [(_, reason)] = other.failed
    google = profile("google")
    assert (again.status, other.status, reason) == (200, 409, 0x0110)
    assert (google.http(409), google.fact("stow", "conflict"), google.reason(reason)) == ("conflict", "ask", "conflict")


def test_a_warning_comes_with_202_and_the_instance_is_stored() -> None:
    with service(warns(0xB100)) as there:
        answered = post(there, a_file())

    assert (answered.status, answered.referenced) == (202, ["2.25.3"])
    assert "0xB100" in profile("aws").fact("stow", "warnings")


@pytest.mark.parametrize("name", SERVICES)
def test_each_reason_that_a_profile_names_can_be_played(name: str) -> None:
    reasons = [int(key, 16) for key in profile(name).stow.reasons if key != "other" and "x" not in key[2:]]
    files = [a_file(SOPInstanceUID=f"2.25.{n}") for n in range(10, 10 + len(reasons) + 1)]
    with service(refuses(*reasons, 0)) as there:
        answered = post(there, *files)

    assert answered.status == (202 if reasons else 200)
    assert [reason for _, reason in answered.failed] == reasons
    assert len(answered.referenced) == 1


def test_a_conflict_may_come_without_a_reason() -> None:
    with service(refuses_without_a_reason) as there:
        answered = post(there, a_file())

    [failed] = answered.items("00081198")
    assert answered.status == 409
    assert "00081197" not in failed


@pytest.mark.parametrize(
    ("door", "status", "meaning"),
    [
        (at_first(1, 429, 7), 429, "outage"),
        (at_first(1, 503, 7), 503, "outage"),
        (at_first(1, 500), 500, "retry"),
        (at_first(1, 404), 404, "outage"),
        (at_first(1, 409), 409, "conflict"),
    ],
)
def test_a_service_that_refuses_at_first_takes_it_then(door: Door, status: int, meaning: str) -> None:
    with service(stores, door=door) as there:
        refused, taken = post(there, a_file()), post(there, a_file())

    assert (refused.status, taken.status) == (status, 200)
    assert refused.headers.get("Retry-After") == ("7" if status in (429, 503) else None)
    assert {profile(name).http(status) for name in SERVICES} == {meaning}


def test_a_service_may_hang_up_after_the_data() -> None:
    with service(stores, door=at_first(1, 0, hangs_up=True)) as there, pytest.raises((ConnectionError, http.client.HTTPException)):
        post(there, a_file())


@pytest.mark.parametrize(
    ("options", "status", "meaning"), [({"token": "right"}, 401, "outage"), ({"max_request_bytes": 100}, 413, "permanent")]
)
def test_a_service_may_take_no_such_request(options: dict[str, Any], status: int, meaning: str) -> None:
    with service(stores, **options) as there:
        answered = post(there, a_file())

    assert answered.status == status
    assert {profile(name).http(status) for name in SERVICES} == {meaning}


@pytest.mark.parametrize(
    ("answer", "path", "found"),
    [
        (stores, "studies/2.25.1/series/2.25.2/instances", 1),
        (stores, "instances?SOPInstanceUID=2.25.3", 1),
        (stores, "studies/2.25.1/instances?SOPInstanceUID=2.25.9", 0),
        (refuses(0xA700), "studies/2.25.1/instances", 0),
        (forgets, "studies/2.25.1/instances", 0),
    ],
)
def test_a_service_tells_what_it_has(answer: Answer, path: str, found: int) -> None:
    with service(answer) as there:
        post(there, a_file())
        answered = get(there, path)

    assert answered.status == (200 if found else 204)
    assert len(answered.json if found else []) == found
