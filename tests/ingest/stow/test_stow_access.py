"""Who may send to the role `stow`, and how the way there is guarded."""

from __future__ import annotations

import base64
import http.client
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from hilum.errors import Misconfigured
from hilum.settings import Settings, Stow
from hilum.web import add_client
from ingest.stow import role
from tests.stow_client import (
    TO_DICOM,
    Running,
    a_body,
    a_file,
    running,
)


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path) as found:
        yield found


# Who may


@pytest.fixture
def clients(tmp_path: Path) -> Path:
    return tmp_path / "clients"


def bearer(key: str) -> str:
    return f"Bearer {key}"


def basic(key: str) -> str:
    return "Basic " + base64.b64encode(f"whoever:{key}".encode()).decode()


@pytest.mark.parametrize("scheme", [bearer, basic])
def test_a_clients_key_names_the_sender(tmp_path: Path, clients: Path, scheme: Callable[[str], str]) -> None:
    keys = {title: add_client(clients, title) for title in ("PORTAL", "LAB")}
    with running(tmp_path / "data", clients=str(clients)) as receiver:
        assert receiver.post(a_body(a_file()), Authorization=scheme(keys["LAB"])).status == 200
        assert receiver.stored()[0][0].calling_aet == "LAB"


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer wrong", "Basic d3Jvbmc=", "Basic %%%", "Basic /w==", "Negotiate x", "Bearer é"]
)
def test_who_has_no_key_is_refused(tmp_path: Path, clients: Path, authorization: str) -> None:
    add_client(clients, "PORTAL")
    with running(tmp_path / "data", clients=str(clients)) as receiver:
        answered = receiver.post(a_body(a_file()), **({"Authorization": authorization} if authorization else {}))

        assert (answered.status, answered.reason) == (401, "unauthorized")
        assert "Bearer" in answered.headers["www-authenticate"]
        assert receiver.is_clean()


def test_anonymous_requests_are_taken_where_that_is_wanted_but_no_wrong_key(tmp_path: Path, clients: Path) -> None:
    add_client(clients, "PORTAL")
    with running(tmp_path / "data", clients=str(clients), anonymous=True) as receiver:
        assert receiver.post(a_body(a_file())).status == 200
        assert receiver.post(a_body(a_file()), Authorization="Bearer wrong").status == 401


def test_a_key_holds_at_once_and_is_taken_back_at_once(tmp_path: Path, clients: Path) -> None:
    add_client(clients, "PORTAL")
    with running(tmp_path / "data", clients=str(clients)) as receiver:
        key = add_client(clients, "LAB")
        assert receiver.post(a_body(a_file()), Authorization=bearer(key)).status == 200

        clients.write_text("# nobody\n")
        assert receiver.post(a_body(a_file()), Authorization=bearer(key)).status == 401

        clients.write_text("no line of clients\n")
        assert receiver.post(a_body(a_file()), Authorization=bearer(key)).reason == "no-clients"
        assert "is not `TITLE sha256:DIGEST`" in receiver.receiver.health().says
        assert not receiver.receiver.health().ready


def test_before_the_first_key_is_made_it_runs_says_how_and_lets_nobody_in(tmp_path: Path, clients: Path) -> None:
    with running(tmp_path / "data", clients=str(clients), host="0.0.0.0") as receiver:  # noqa: S104  # where keys are needed
        assert receiver.post(a_body(a_file())).status == 401
        assert receiver.post(a_body(a_file()), Authorization="Bearer wrong").status == 401
        assert receiver.receiver.health().ready
        assert "hilum stow key" in receiver.receiver.health().says

        key = add_client(clients, "PORTAL")

        assert receiver.post(a_body(a_file()), Authorization=bearer(key)).status == 200
        assert "hilum stow key" not in receiver.receiver.health().says

        clients.unlink()

        assert receiver.post(a_body(a_file()), Authorization=bearer(key)).status == 401


def test_without_keys_nobody_else_can_reach_it_unless_that_is_wanted(tmp_path: Path) -> None:
    everywhere = "0.0.0.0"  # noqa: S104  # that is the point
    with pytest.raises(Misconfigured, match=r"would take objects from anybody.*stow\.anonymous = true"):
        role(Settings(data=str(tmp_path), stow=Stow(host=everywhere, port=0))).run(threading.Event())
    with running(tmp_path, host=everywhere, anonymous=True) as receiver:
        assert receiver.post(a_body(a_file())).status == 200


def test_a_port_that_is_taken_is_said_in_words(receiver: Running, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"STOW-RS cannot listen on 127\.0\.0\.1"):
        role(Settings(data=str(tmp_path), stow=Stow(port=receiver.port))).run(threading.Event())


# TLS


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def certified(authority: trustme.CA, tmp_path: Path) -> dict[str, Any]:
    """Settings with a certificate for 127.0.0.1."""
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    for blob in issued.cert_chain_pems:
        blob.write_to_path(tmp_path / "certificate.pem", append=True)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return {"tls_certificate": str(tmp_path / "certificate.pem"), "tls_key": str(tmp_path / "key.pem")}


def post_over_tls(port: int, context: ssl.SSLContext) -> int:
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=context)
    connection.request("POST", "/dicom-web/studies", a_body(a_file()), {"Content-Type": TO_DICOM})
    return connection.getresponse().status


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_it_speaks_tls_with_forward_secrecy_and_nothing_older(tmp_path: Path, authority: trustme.CA, certified: dict[str, Any]) -> None:
    with running(tmp_path / "data", **certified) as receiver:
        assert receiver.receiver.health().says.startswith("https://127.0.0.1:")
        assert post_over_tls(receiver.port, trusting(authority)) == 200
        old = trusting(authority)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        assert post_over_tls(receiver.port, old) == 200
        old.set_ciphers("AES256-GCM-SHA384")  # without an ephemeral key
        with pytest.raises(ssl.SSLError):
            post_over_tls(receiver.port, old)


def test_with_mutual_tls_only_certificates_of_the_authority_are_let_in(
    tmp_path: Path, authority: trustme.CA, certified: dict[str, Any]
) -> None:
    with running(tmp_path / "data", tls_client_ca=str(tmp_path / "ca.pem"), **certified) as receiver:
        known = trusting(authority)
        authority.issue_cert("client.example").configure_cert(known)
        assert post_over_tls(receiver.port, known) == 200
        stranger = trusting(authority)
        trustme.CA().issue_cert("client.example").configure_cert(stranger)
        for context in (stranger, trusting(authority)):
            with pytest.raises((ssl.SSLError, OSError)):
                post_over_tls(receiver.port, context)
        assert len(receiver.stored()) == 1


def test_a_certificate_that_ends_soon_is_spoken_of(tmp_path: Path, authority: trustme.CA, certified: dict[str, Any]) -> None:
    ends = datetime.now(UTC) + timedelta(days=29)
    issued = authority.issue_cert("127.0.0.1", not_after=ends)
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    with running(tmp_path / "data", tls_certificate=str(tmp_path / "both.pem")) as receiver:
        assert f"The TLS certificate expires on {ends:%Y-%m-%d}" in receiver.receiver.health().says
        assert receiver.receiver.health().ready
    with running(tmp_path / "more", **certified) as receiver:
        assert "expires" not in receiver.receiver.health().says


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tls_certificate": ""}, r"stow\.tls_certificate is missing"),
        ({"tls_certificate": "/nowhere.pem"}, r"stow\.tls_certificate: /nowhere\.pem cannot be used \(No such file"),
        ({"tls_key": "{ca}"}, r"stow\.tls_key: .* cannot be used"),
        ({"tls_client_ca": "/nowhere.pem"}, r"stow\.tls_client_ca: /nowhere\.pem cannot be used \(No such file"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_said_in_words(
    tmp_path: Path, certified: dict[str, Any], change: dict[str, str], says: str
) -> None:
    stow = certified | {name: value.format(ca=tmp_path / "ca.pem") for name, value in change.items()}
    with pytest.raises(Misconfigured, match=says):
        role(Settings(data=str(tmp_path), stow=Stow(port=0, **stow))).run(threading.Event())
