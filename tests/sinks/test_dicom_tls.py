"""C-STORE over TLS: certificates are checked both ways, and what is wrong with one is said."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme

from hilum.errors import Misconfigured
from hilum.part10 import Part10
from hilum.settings import Settings
from hilum.sink import Outage, Settled, sink_of
from hilum.testing import MemoryStore, a_delivery
from sinks.dicom import Dicom
from tests.peers import pacs


class Certificates:
    """An authority, a certificate of the peer's and one of Hilum's, as files."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.ca = str(folder / "ca.pem")
        self.authority.cert_pem.write_to_path(self.ca)
        self._peer = self.authority.issue_cert("pacs.test", "127.0.0.1")
        self.certificate = str(folder / "hilum.pem")
        self.authority.issue_cert("hilum.test").private_key_and_cert_chain_pem.write_to_path(self.certificate)

    def of_peer(self, *, asks: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._peer.configure_cert(context)
        if asks:
            context.verify_mode = ssl.CERT_REQUIRED
            self.authority.configure_trust(context)
        return context


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


def deliver(sink: Dicom, count: int = 1) -> list[Settled]:
    store = MemoryStore()
    session = sink.open(Settings())
    try:
        found = []
        for n in range(count):
            delivery = a_delivery(store, SOPInstanceUID=f"2.25.{n + 10}", ImageComments="x" * 100_000 if n else "x")
            found.append(session.deliver(delivery, Part10(store, delivery.object)))
        return found
    finally:
        session.close()


def sink_for(port: int, **more: object) -> Dicom:
    return Dicom(host="127.0.0.1", port=port, aet="PACS", tls=True, **more)  # type: ignore[arg-type]  # by name


def test_objects_go_over_one_association_with_tls(certificates: Certificates) -> None:
    with pacs(tls=certificates.of_peer()) as there:
        outcomes = deliver(sink_for(there.port, tls_ca=certificates.ca), 3)

        assert [outcome.state for outcome in outcomes] == ["delivered"] * 3
        assert len(there.asked) == 1


def test_a_certificate_that_is_not_trusted_is_an_outage_with_its_fix(certificates: Certificates) -> None:
    with pacs(tls=certificates.of_peer()) as there, pytest.raises(Outage, match=r"is not trusted: .*certificate") as outage:
        deliver(sink_for(there.port))

    assert "tls_ca" in outage.value.fix


def test_a_certificate_of_another_name_is_an_outage_unless_the_name_is_set(certificates: Certificates) -> None:
    with pacs(tls=certificates.of_peer()) as there:
        with pytest.raises(Outage, match=r"is not trusted: .*mismatch"):
            deliver(sink_for(there.port, tls_ca=certificates.ca, tls_server_name="other.test"))
        assert deliver(sink_for(there.port, tls_ca=certificates.ca, tls_server_name="pacs.test"))[0].state == "delivered"


def test_a_peer_that_asks_for_a_certificate_gets_hilums(certificates: Certificates) -> None:
    with pacs(tls=certificates.of_peer(asks=True)) as there:
        [outcome] = deliver(sink_for(there.port, tls_ca=certificates.ca, tls_certificate=certificates.certificate))

        assert outcome.state == "delivered"


def test_a_peer_that_asks_for_a_certificate_in_vain_is_an_outage(certificates: Certificates) -> None:
    with pacs(tls=certificates.of_peer(asks=True)) as there, pytest.raises(Outage):
        deliver(sink_for(there.port, tls_ca=certificates.ca))


def test_a_peer_without_tls_is_an_outage_with_its_fix() -> None:
    with pacs() as there, pytest.raises(Outage, match="TLS"):
        deliver(sink_for(there.port, association_timeout_s=1.0))


def test_a_check_tells_how_tls_is_spoken(certificates: Certificates) -> None:
    with pacs(tls=certificates.of_peer()) as there:
        found = {step.name: step for step in sink_for(there.port, tls_ca=certificates.ca).check(Settings())}
        untrusted = list(sink_for(there.port).check(Settings()))

    assert found["TLS"].says.startswith("TLSv1.")
    assert found["C-ECHO"].ok
    assert [(step.name, step.ok) for step in untrusted] == [("name", True), ("connection", True), ("TLS", False)]


def test_files_that_cannot_be_used_are_told_before_anything_is_sent(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"tls_ca.*nowhere\.pem cannot be used"):
        sink_for(104, tls_ca=str(tmp_path / "nowhere.pem")).open(Settings())


def test_settings_of_tls_without_tls_are_refused() -> None:
    with pytest.raises(Misconfigured, match="`tls` is false"):
        sink_of("pacs", {"type": "dicom", "host": "pacs", "port": 104, "aet": "PACS", "tls_ca": "ca.pem"})
