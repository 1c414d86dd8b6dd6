"""The web service: reads requests, hands their bodies to transactions in threads, and answers."""

from __future__ import annotations

import asyncio
import base64
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypedDict, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from hilum import telemetry
from hilum.dicom import uid_is_usable
from hilum.errors import Misconfigured
from hilum.settings import Stow
from hilum.spool import Spool
from hilum.summed import Summed
from hilum.web import Clients

from . import answers, response
from .answers import Outcome, Refused
from .media import DICOM, DICOM_JSON, DICOM_XML, MULTIPART, accepts_xml_only, media_type
from .senders import Senders
from .transaction import Request, Transaction

T = TypeVar("T")
log = telemetry.logger("stow")

#: A client that sends less than this within `stow.idle_timeout_s` is too slow.
SLOWEST_BYTES = 16 * 1024
#: Pieces of a body are gathered to this size before a thread takes them.
PIECE_BYTES = 256 * 1024
#: Objects that are synced at the same time, of all requests.
SYNCS = 4
#: RFC 2046 5.1.1 allows 70; Orthanc's are of 73.
MAX_BOUNDARY_CHARACTERS = 200


class Service:
    """The ASGI application `app`, and what it shares. `scratch` is where bulk data waits. Call `close` when no request is left."""

    def __init__(self, settings: Stow, spool: Spool, clients: Clients | None, senders: Senders, summed: Summed, scratch: Path) -> None:
        self.stopping = False  #: new requests are refused
        self.open = 0  #: requests under way
        self.fault = ""  #: why no client is let in
        self._settings = settings
        self._spool = spool
        self._clients = clients
        self._senders = senders
        self._summed = summed
        self._scratch = scratch
        self._threads = ThreadPoolExecutor(settings.max_requests, thread_name_prefix="stow")
        self._syncs = ThreadPoolExecutor(SYNCS, thread_name_prefix="stow sync")
        base = "/" + settings.base.strip("/") if settings.base.strip("/") else ""
        self.app = Starlette(
            routes=[
                Route(f"{base}/studies", self._answer, methods=["POST"]),
                Route(f"{base}/studies/{{study}}", self._answer, methods=["POST"]),
            ],
            exception_handlers={HTTPException: self._unrouted},
        )

    def close(self) -> None:
        """Wait for what is under way in threads."""
        self._threads.shutdown()
        self._syncs.shutdown()

    async def _unrouted(self, request: HttpRequest, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 0
        return self._refuse(request, Refused(answers.ONLY_STORE if status == 405 else answers.NOT_FOUND), "")

    async def _answer(self, request: HttpRequest) -> Response:
        began, sender = time.monotonic(), ""
        self.open += 1
        try:
            sender = self._sender(request)
            self._senders.check(sender, _peer(request))
            record = self._summed.begin(sender, _peer(request))
            counted: Counted = {}
            try:
                transaction = self._begin(request, record, sender)
                try:
                    outcomes = await self._store(request, transaction)
                finally:
                    # Not waited for: what is in a thread is finished first, and nothing is left to be told of it.
                    self._threads.submit(transaction.drop)
                counted = _counted(transaction, outcomes)
            finally:
                self._summed.end(record, **counted)
        except Refused as refused:
            return self._refuse(request, refused, sender)
        except Exception as error:  # one request must not take the others with it
            log.error("request_failed", calling_aet=sender, error=telemetry.described(error))
            return self._refuse(request, Refused(answers.FAILED), sender)
        finally:
            self.open -= 1
        return self._report(request, transaction, outcomes, time.monotonic() - began)

    # Who, and what

    def _sender(self, request: HttpRequest) -> str:
        """The title of the client, `""` for one without a key where that is allowed. Raises `Refused`."""
        key = _key_of(request.headers.get("authorization", ""))
        if self._clients is None:
            return ""
        if not key and self._settings.anonymous:
            return ""
        try:
            title = self._clients.title_of(key)
            self.fault = ""
        except Misconfigured as error:
            if str(error) != self.fault:
                log.error("clients_unreadable", says=str(error))
            self.fault = str(error)
            raise Refused(answers.NO_CLIENTS) from None
        if not title:
            raise Refused(answers.UNAUTHORIZED)
        return title

    def _begin(self, request: HttpRequest, record: str, sender: str) -> Transaction:
        """The transaction, if what is said of it beforehand may be. Raises `Refused`."""
        study = request.path_params.get("study", "")
        if study and not uid_is_usable(study):
            raise Refused(answers.NOT_FOUND)
        kind = media_type(request.headers.get("content-type", ""))
        boundary = ""
        if kind.type == MULTIPART:
            boundary = kind.parameters.get("boundary", "").rstrip(" ")
            inner = media_type(kind.parameters.get("type", DICOM)).type
            if inner in (DICOM, DICOM_JSON) and not 0 < len(boundary) <= MAX_BOUNDARY_CHARACTERS:
                raise Refused(answers.NO_BOUNDARY)
        else:
            inner = kind.type
        if inner not in (DICOM, DICOM_JSON) or request.headers.get("content-encoding", "identity").lower() != "identity":
            raise Refused(answers.MEDIA_TYPE)
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._settings.max_request_bytes:
            raise Refused(answers.REQUEST_TOO_LARGE)
        if self.stopping:
            raise Refused(answers.STOPPING)
        if self.open > self._settings.max_requests:
            raise Refused(answers.BUSY)
        if self._spool.nearly_full():
            raise Refused(answers.NO_SPACE)
        asked = Request(
            kind=inner,
            boundary=boundary,
            study=study,
            sender=sender,
            peer=_peer(request),
            id=record,
            max_object_bytes=self._senders.max_object_bytes(sender),
        )
        return Transaction(asked, self._spool, self._settings, self._syncs, self._scratch)

    # The body

    async def _store(self, request: HttpRequest, transaction: Transaction) -> list[Outcome]:
        waiting = bytearray()
        is_over = False
        deadline, since_then = self._deadline(), 0
        while not is_over:
            try:
                message = await asyncio.wait_for(request.receive(), deadline - time.monotonic())
            except TimeoutError:
                raise Refused(answers.TOO_SLOW) from None
            if message["type"] == "http.disconnect":
                raise Refused(answers.CUT_OFF)
            body = message.get("body", b"")
            since_then += len(body)
            waiting += body
            is_over = not message.get("more_body", False)
            if len(waiting) >= PIECE_BYTES or (is_over and waiting):
                await self._aside(partial(transaction.receive, bytes(waiting)))
                waiting.clear()
            if since_then >= SLOWEST_BYTES:
                deadline, since_then = self._deadline(), 0
        return await self._aside(transaction.end)

    def _deadline(self) -> float:
        return time.monotonic() + self._settings.idle_timeout_s

    async def _aside(self, call: Callable[[], T]) -> T:
        """In a thread: the disk may make it wait."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    # The answer

    def _report(self, request: HttpRequest, transaction: Transaction, outcomes: list[Outcome], seconds: float) -> Response:
        asked = transaction.request
        for each in outcomes:
            telemetry.STOW_OBJECTS.labels(status=f"0x{each.answer.status:04X}").inc()
            if each.answer.status:
                log.warning(
                    "instance_not_plainly_stored",
                    status=f"0x{each.answer.status:04X}",
                    says=each.answer.when,
                    association=asked.id,
                    calling_aet=asked.sender,
                    instance=each.sop_instance_uid,
                )
        status = response.status_of(outcomes)
        log.info(
            "request_stored",
            status=str(status.value),
            association=asked.id,
            calling_aet=asked.sender,
            peer=asked.peer,
            count=sum(each.is_stored for each in outcomes),
            size_bytes=transaction.size_bytes,
            seconds=round(seconds, 3),
        )
        module = response.module_of(outcomes)
        if accepts_xml_only(request.headers.get("accept", "")):
            return Response(response.as_xml(module), status, media_type=DICOM_XML)
        return Response(response.as_json(module), status, media_type=DICOM_JSON)

    def _refuse(self, request: HttpRequest, refused: Refused, sender: str) -> Response:
        refusal = refused.refusal
        telemetry.STOW_REFUSED.labels(reason=refusal.reason).inc()
        record = self._summed.refuse(sender, _peer(request), f"{refusal.title} ({refusal.reason})", str(refusal.status))
        log.warning(
            "request_refused",
            reason=refusal.reason,
            status=str(refusal.status),
            says=refused.sentence,
            association=record,
            calling_aet=sender,
            peer=_peer(request),
        )
        headers = {}
        if refusal.retry_after_s:
            headers["Retry-After"] = str(refusal.retry_after_s)
        if refusal is answers.UNAUTHORIZED:
            headers["WWW-Authenticate"] = 'Bearer realm="hilum", Basic realm="hilum", charset="UTF-8"'
        if refusal is answers.ONLY_STORE:
            headers["Allow"] = "POST"
        return Response(response.as_problem(refused), refusal.status, headers, media_type="application/problem+json")


class Counted(TypedDict, total=False):
    """What `Summed.end` is told of a request."""

    statuses: Counter[str]
    objects: int
    size_bytes: int


def _counted(transaction: Transaction, outcomes: list[Outcome]) -> Counted:
    statuses = Counter(f"0x{each.answer.status:04X}" for each in outcomes)
    return {"statuses": statuses, "objects": sum(each.is_stored for each in outcomes), "size_bytes": transaction.kept_bytes}


def _peer(request: HttpRequest) -> str:
    """Network address of the client, without port."""
    return request.client.host if request.client else ""


def _key_of(authorization: str) -> str:
    """The key in an Authorization header (RFC 6750 2.1, RFC 7617), `""` if there is none."""
    scheme, _, credentials = authorization.strip().partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
        except ValueError:
            return ""
    return ""
