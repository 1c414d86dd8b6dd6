"""A DICOM node that Hilum calls: where it is, how long Hilum waits for it, and a TCP connection to it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence

from msgspec import Struct

from hilum.client_tls import ClientTls
from hilum.errors import Misconfigured, TryAgain


class Peer(Struct, frozen=True, kw_only=True):
    """A DICOM node, and how long Hilum waits for it."""

    host: str
    port: int
    aet: str
    calling_aet: str
    connect_timeout_s: float = 10.0
    #: For the answer to an A-ASSOCIATE-RQ.
    association_timeout_s: float = 30.0
    #: For a response, and for the peer to take the next megabyte.
    response_timeout_s: float = 60.0
    #: Longest P-DATA-TF sent, if the peer takes it; 0 means as long as the peer takes.
    max_pdu_bytes: int = 0
    #: None: in the clear.
    tls: ClientTls | None = None

    @property
    def address(self) -> str:
        """Host and port, for people."""
        return f"{self.host}:{self.port}"


class NoAssociation(TryAgain):
    """The peer cannot be reached, or refuses the association: nothing was sent."""


def addresses(peer: Peer) -> list[tuple[str, int]]:
    """The addresses that the peer's name stands for. Raises `NoAssociation`."""
    try:
        found = socket.getaddrinfo(peer.host, peer.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise NoAssociation(
            f"The name {peer.host} is not known here ({error.strerror or type(error).__name__}).",
            fix="Correct `host`, or ask the network's administrator for the name.",
        ) from None
    return list(dict.fromkeys((str(each[4][0]), int(each[4][1])) for each in found))


def connect(peer: Peer, to: Sequence[tuple[str, int]]) -> socket.socket:
    """A connection to the first of the addresses that takes one, with TLS if the peer has it. Raises `NoAssociation`."""
    problem = "no address"
    for address in to:
        try:
            connection = socket.create_connection(address, timeout=peer.connect_timeout_s)
        except TimeoutError:
            problem = f"no answer within {peer.connect_timeout_s:g} s"
        except OSError as error:
            problem = (error.strerror or type(error).__name__).lower()
        else:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return _secured(connection, peer) if peer.tls else connection
    fix = "Check that the peer runs, listens on that port, and that no firewall is between."
    raise NoAssociation(f"{peer.address} cannot be reached: {problem}.", fix=fix)


def _secured(connection: socket.socket, peer: Peer) -> socket.socket:
    """The connection with TLS. Raises `NoAssociation`; then it is closed."""
    assert peer.tls is not None
    try:
        return peer.tls.context().wrap_socket(connection, server_hostname=peer.host)
    except Misconfigured as error:
        raise _no_tls(connection, NoAssociation(error.sentence, fix=error.fix)) from None
    except ssl.SSLCertVerificationError as error:
        sentence = f"{peer.address} shows a certificate that is not trusted: {error.verify_message.rstrip('.')}."
        fix = "Set tls_ca to the authority that has signed it; tls_check_name = false if it does not name `host`."
        raise _no_tls(connection, NoAssociation(sentence, fix=fix)) from None
    except OSError as error:
        why = (getattr(error, "reason", "") or error.strerror or type(error).__name__).lower().replace("_", " ")
        fix = "Check that this port speaks TLS 1.2 or 1.3, and whether the peer wants a certificate of Hilum's (tls_certificate)."
        raise _no_tls(connection, NoAssociation(f"{peer.address} does not agree on TLS: {why}.", fix=fix)) from None


def _no_tls(connection: socket.socket, why: NoAssociation) -> NoAssociation:
    connection.close()
    return why
