"""HTTP towards a DICOMweb service: one connection that is kept alive, credentials, and errors in words."""

from __future__ import annotations

import ssl
from base64 import b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import urllib3
from msgspec import Struct

from hilum.client_tls import ClientTls
from hilum.errors import HilumError, Misconfigured
from hilum.qido import instances_of
from hilum.sink import Outage
from hilum.upper_layer import IMPLEMENTATION_VERSION_NAME

#: Of an answer no more than this is read: a line for each instance is a few hundred bytes.
MAX_ANSWER_BYTES = 8 * 2**20


class Reply(Struct, frozen=True, kw_only=True):
    """An answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Lost(HilumError):
    """The answer did not come: what became of the request is not known."""


class Credentials(Struct, frozen=True, kw_only=True):
    """Who Hilum is to the service."""

    username: str = ""
    password: str = ""
    token: str = ""
    token_file: str = ""

    def header(self) -> dict[str, str]:
        """The Authorization header (RFC 9110 11.6.2), if there is one. Raises `Misconfigured` if the token's file cannot be read."""
        if self.username:
            return {"Authorization": "Basic " + b64encode(f"{self.username}:{self.password}".encode()).decode()}
        token = self.token
        if self.token_file:
            try:
                token = Path(self.token_file).read_text("ascii").strip()
            except (OSError, ValueError) as error:
                why = getattr(error, "strerror", "") or "it is not text"
                fix = "Have it written, readable by Hilum's user."
                raise Misconfigured("token-file", f"`token_file` {self.token_file} cannot be read ({why}).", fix=fix) from None
        return {"Authorization": f"Bearer {token}"} if token else {}


class Client:
    """One connection at a time, for one thread."""

    def __init__(self, url: str, credentials: Credentials, tls: ClientTls, connect_timeout_s: float, response_timeout_s: float) -> None:
        """`url` is the base of the service. Raises `Misconfigured` if a file of TLS cannot be used."""
        self.url = url.rstrip("/")
        self.tls = tls
        self.parts = urlsplit(self.url)
        self.connect_timeout_s, self.response_timeout_s = connect_timeout_s, response_timeout_s
        self._credentials = credentials
        self._http = urllib3.PoolManager(
            num_pools=1,
            maxsize=1,
            retries=False,  # who calls knows whether to repeat
            timeout=urllib3.Timeout(connect=connect_timeout_s, read=response_timeout_s),
            ssl_context=tls.context() if self.secure else None,
            headers={"User-Agent": IMPLEMENTATION_VERSION_NAME},
        )

    @property
    def secure(self) -> bool:
        """Whether the service is reached by TLS."""
        return self.parts.scheme == "https"

    def instances_of(self, study_instance_uid: str) -> frozenset[str]:
        """The SOPInstanceUIDs that the service has of a study, by QIDO-RS (PS3.18 10.6). Raises `TryAgain`, and `Misconfigured`."""
        headers = {"User-Agent": IMPLEMENTATION_VERSION_NAME, **self._credentials.header()}
        return instances_of(self.url, study_instance_uid, http=self._http, headers=headers, timeout_s=self.response_timeout_s)

    def ask(self, method: str, path: str, headers: Mapping[str, str], body: Iterator[bytes | memoryview] | None = None) -> Reply:
        """Send a request and read the answer. What `body` raises ends the request amid its body and goes on.

        Raises `Outage` if the service is not reached, `Lost` if no answer came, and `Misconfigured`.
        """
        try:
            response = self._http.request(
                method,
                self.url + path,
                headers={"User-Agent": IMPLEMENTATION_VERSION_NAME, **self._credentials.header(), **headers},
                body=body,  # type: ignore[arg-type]  # urllib3 sends memoryviews as well
                redirect=False,
                preload_content=False,
            )
            try:
                found = response.read(MAX_ANSWER_BYTES, decode_content=True)
                if response.length_remaining == 0 or not response.read(1):
                    response.drain_conn()
            finally:
                response.close()
                response.release_conn()
            return Reply(status=response.status, headers={k.lower(): v for k, v in response.headers.items()}, body=found)
        except urllib3.exceptions.NameResolutionError:
            raise Outage(
                f"The name {self.parts.hostname} is not known here.", fix="Correct `url`, or ask the network's administrator."
            ) from None
        except urllib3.exceptions.SSLError as error:
            raise self._not_trusted(error) from None
        except urllib3.exceptions.NewConnectionError:
            fix = "Check that the service runs, listens on that port, and that no firewall is between."
            raise Outage(f"{self.url} cannot be reached.", fix=fix) from None
        except urllib3.exceptions.ConnectTimeoutError:
            fix = "Check that the service runs and that no firewall is between."
            raise Outage(f"{self.url} cannot be reached: no answer within {self.connect_timeout_s:g} s.", fix=fix) from None
        except (urllib3.exceptions.TimeoutError, TimeoutError):
            sentence = f"{self.url} did not answer within {self.response_timeout_s:g} s."
            raise Lost(sentence, fix="Raise `response_timeout_s` if it needs longer.") from None
        except (urllib3.exceptions.HTTPError, OSError):
            raise Lost(f"{self.url} closed the connection without an answer.", fix="The service's own log says why.") from None

    def close(self) -> None:
        """Let go of the connection."""
        self._http.clear()

    def _not_trusted(self, error: Exception) -> Outage:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ssl.SSLError):
            cause = next((each for each in cause.args if isinstance(each, BaseException)), None) or cause.__cause__
        if isinstance(cause, ssl.SSLCertVerificationError):
            fix = "Set `tls_ca` to the PEM file of the authority that signed it, or correct the name in `url`."
            return Outage(f"The TLS certificate of {self.parts.netloc} is not trusted: {cause.verify_message}.", fix=fix)
        reason = (getattr(cause, "reason", None) or "no reason").replace("_", " ").lower()
        return Outage(f"{self.parts.netloc} does not speak TLS with Hilum: {reason}.", fix="Check `url`, `tls_certificate` and `tls_key`.")
