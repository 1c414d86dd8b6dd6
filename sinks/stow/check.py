"""Try the way to a DICOMweb service, step by step, each with what it found or what to do."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

from hilum import testobject
from hilum.sink import Outage, Step, step

from .answer import meaning, read
from .body import CONTENT_TYPE, frame
from .client import Client, Lost

#: Longest wait of a check for one answer, in seconds, however patient deliveries are.
CHECK_WAITS_S = 10.0
_QIDO = {"Accept": "application/dicom+json"}


def check(client: Client, *, with_object: bool) -> Iterator[Step]:
    """Name, TCP, TLS, the service and whom it admits, and a marked test object if that is allowed."""
    host, port = client.parts.hostname or "", client.parts.port or (443 if client.secure else 80)
    with step("name") as resolving:
        try:
            found = dict.fromkeys(str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            fix = "Correct `url`, or ask the network's administrator for the name."
            raise Outage(f"The name {host} is not known here ({error.strerror or type(error).__name__}).", fix=fix) from None
        resolving.says = f"{host} is {', '.join(found)}"
    yield resolving.done
    if not resolving.done.ok:
        return
    with step("connection") as connecting:
        connection = _connected(client, host, port)
        connecting.says = f"port {port} takes connections"
    yield connecting.done
    if not connecting.done.ok:
        return
    with connection:
        if client.secure:
            with step("TLS") as securing:
                securing.says = _secured(client, connection, host)
            yield securing.done
            if not securing.done.ok:
                return
    try:
        asking = _service_step(client)
        yield asking
        if with_object and asking.ok:
            yield _object_step(client)
    finally:
        client.close()


def _connected(client: Client, host: str, port: int) -> socket.socket:
    try:
        return socket.create_connection((host, port), timeout=client.connect_timeout_s)
    except OSError as error:
        why = "no answer" if isinstance(error, TimeoutError) else (error.strerror or type(error).__name__).lower()
        fix = "Check that the service runs, listens on that port, and that no firewall is between."
        raise Outage(f"{host}:{port} cannot be reached: {why}.", fix=fix) from None


def _secured(client: Client, connection: socket.socket, host: str) -> str:
    try:
        with client.tls.context().wrap_socket(connection, server_hostname=host) as secured:
            cipher = secured.cipher()
            return f"{secured.version()} with {cipher[0] if cipher else 'no cipher'}"
    except ssl.SSLCertVerificationError as error:
        fix = "Set `tls_ca` to the PEM file of the authority that signed it, or correct the name in `url`."
        raise Outage(f"The TLS certificate of {host} is not trusted: {error.verify_message}.", fix=fix) from None
    except OSError as error:
        reason = (getattr(error, "reason", "") or error.strerror or type(error).__name__).replace("_", " ").lower()
        raise Outage(f"{host} does not speak TLS with Hilum: {reason}.", fix="Check `url`: this may be a port without TLS.") from None


def _service_step(client: Client) -> Step:
    """Whether the service answers and admits Hilum: a search for one study (PS3.18 10.6), else what it says that it takes."""
    with step("service") as asking:
        try:
            searched = client.ask("GET", "/studies?limit=1", _QIDO)
            if searched.status in (401, 403):
                fix = "Check `username` and `password`, `token` or `token_file`, and what these may do."
                raise Outage(f"{client.url} answered {searched.status}: it does not admit Hilum.", fix=fix)
            searches = searched.status in (200, 204)
            offered = searched if searches else client.ask("OPTIONS", "/studies", {})
        except Lost as lost:
            raise Outage(lost.sentence, fix=lost.fix) from None
        allowed = {method.strip() for each in (searched, offered) for method in each.headers.get("allow", "").upper().split(",")}
        if not searches and "POST" not in allowed:
            fix = "Check that `url` is what comes before /studies."
            raise Outage(f"{client.url} answered {searched.status} to a search, and does not say that it stores.", fix=fix)
        asking.says = f"{client.url} answers to searches" if searches else f"{client.url} takes POST, and no searches"
    return asking.done


def _object_step(client: Client) -> Step:
    """Store the marked test object."""
    with step("test object") as storing:
        body = frame(testobject.part10().getvalue())
        headers = {"Content-Type": CONTENT_TYPE, "Content-Length": str(len(body)), **_QIDO}
        try:
            reply = client.ask("POST", "/studies", headers, iter([body]))
        except Lost as lost:
            raise Outage(lost.sentence, fix=lost.fix) from None
        said = read(reply.body)
        reason = said.failed.get(testobject.SOP_INSTANCE_UID, 0)
        if reply.status not in (200, 202, 409) or (reason and reason != 0x0111):
            words = f" ({meaning(reason)[0]}, 0x{reason:04X})" if reason else ""
            raise Outage(f"{client.url} answered {reply.status}{words}.", fix="The service's own log says why it does not take the object.")
        where = f"study {testobject.STUDY_INSTANCE_UID} of patient {testobject.PATIENT_ID}"
        storing.says = f"{reply.status}: {where} is there now and may be deleted"
    return storing.done
