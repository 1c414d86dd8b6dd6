"""The object store: `ObjectStore` is the seam, `S3Store` speaks S3 through the minio SDK."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol, cast
from urllib.parse import quote, urlsplit

import minio
import urllib3
from minio.commonconfig import ENABLED, CopySource, Filter
from minio.credentials.credentials import Credentials
from minio.error import MinioException, S3Error, ServerError
from minio.helpers import check_bucket_name
from minio.lifecycleconfig import Expiration, LifecycleConfig, Rule
from minio.retention import Retention
from minio.signer import sign_v4_s3
from msgspec import Struct

from hilum.errors import Misconfigured, NotFound, TryAgain
from hilum.settings import Settings

#: Larger objects go up in parts, so that a broken connection costs one part and not the object.
MULTIPART_FROM_BYTES = 64 * 2**20
PART_BYTES = 16 * 2**20  #: memory held per part under way
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 60.0
_UNSIGNED = "UNSIGNED-PAYLOAD"
_NO_LOCK = "ObjectLockConfigurationNotFoundError"
_EXPIRE_RULE = "hilum-expire"  #: Hilum's own rule among those of a bucket's lifecycle
RetentionMode = Literal["governance", "compliance"]


class StoredObject(Struct, frozen=True, kw_only=True):
    """What the store says of an object."""

    bucket: str
    key: str
    size_bytes: int
    modified_at: datetime


class ObjectStore(Protocol):
    """A store of whole objects. Safe to share between threads.

    Every method raises `TryAgain` while the store does not answer, and `Misconfigured` (with the fix) if it refuses
    Hilum's keys or has no such bucket; what else it raises is said with it.
    """

    def put(self, bucket: str, key: str, content: BinaryIO, size_bytes: int) -> None:
        """Store `size_bytes` bytes from `content` (read from where it stands) whole or not at all, over what was there.

        When it returns, the store has answered for the object; memory used does not grow with its size.
        Raises `ValueError` if `content` ends early.
        """
        ...

    def open(self, bucket: str, key: str, offset: int = 0, size_bytes: int | None = None) -> AbstractContextManager[BinaryIO]:
        """The object, or `size_bytes` bytes of it from `offset`, as a stream. Raises `NotFound`."""
        ...

    def get(self, bucket: str, key: str, offset: int = 0, size_bytes: int | None = None) -> bytes:
        """The same as `open`, read into memory."""
        ...

    def stat(self, bucket: str, key: str) -> StoredObject:
        """Size and time of an object. Raises `NotFound`."""
        ...

    def copy(self, bucket: str, key: str, to_bucket: str, to_key: str) -> None:
        """Copy inside the store, over what was there. Raises `NotFound`."""
        ...

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        ...

    def list(self, bucket: str, prefix: str = "") -> Iterator[StoredObject]:
        """Every object whose key begins with `prefix`, by key."""
        ...

    def ensure_bucket(self, bucket: str, *, object_lock: bool = False) -> bool:
        """Make the bucket if it is not there, with object lock if that is wanted; whether it was made now."""
        ...

    def check(self, bucket: str) -> None:
        """Return if the store answers, takes Hilum's keys and has `bucket`."""
        ...


class KeepingStore(ObjectStore, Protocol):
    """A store that keeps objects from being deleted, and deletes them in time."""

    def has_object_lock(self, bucket: str) -> bool:
        """Whether objects of the bucket can be retained."""
        ...

    def retain(self, bucket: str, key: str, mode: RetentionMode, until: datetime) -> None:
        """Let nobody delete or replace the object before `until`, unless it is retained already. Raises `NotFound`.

        `governance` may be lifted by who has the right, `compliance` by nobody.
        """
        ...

    def is_retained(self, bucket: str, key: str) -> bool:
        """Whether the object, in a bucket with object lock, is retained or under legal hold now; one that is not there is not."""
        ...

    def expire_after(self, bucket: str, days: int) -> None:
        """Have the store delete the bucket's objects after so many days; the bucket's other lifecycle rules stay."""
        ...


def open_store(settings: Settings) -> KeepingStore:
    """The store that `settings.s3` names. Connects on first use. Raises `Misconfigured` if the settings cannot work."""
    from hilum.storage.folder import FolderStore  # which is made of what is here

    s3 = settings.s3
    store = S3Store(s3.endpoint, s3.access_key, s3.secret_key, region=s3.region, ca_file=s3.ca_file)
    return FolderStore(store, s3.bucket, Path(s3.folder)) if s3.folder else store


class S3Store:
    """Any S3 store, by the minio SDK: kept-alive connections, one per thread that asks at the same time, up to `connections`."""

    def __init__(
        self, endpoint: str, access_key: str, secret_key: str, *, region: str = "us-east-1", ca_file: str = "", connections: int = 32
    ) -> None:
        """Raises `Misconfigured` if `endpoint` is no URL or a key is empty."""
        url = urlsplit(endpoint)
        if url.scheme not in ("http", "https") or not url.netloc or url.path.strip("/"):
            raise Misconfigured("s3-endpoint-invalid", f"s3.endpoint {endpoint!r} is not http://host:port.", fix="Correct s3.endpoint.")
        if not access_key or not secret_key:
            raise Misconfigured(
                "s3-keys-missing", "s3.access_key or s3.secret_key is empty.", fix="Set both, in files named by HILUM_S3__…_FILE."
            )
        if ca_file and not Path(ca_file).is_file():
            raise Misconfigured("s3-ca-missing", f"s3.ca_file {ca_file} does not exist.", fix="Correct s3.ca_file.")
        self._endpoint = endpoint
        self._http = urllib3.PoolManager(
            maxsize=connections,
            timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S),
            retries=False,  # who calls knows whether to repeat; hidden repeats only stretch an outage
            blocksize=2**20,  # an object of usual size is one piece: each costs other threads their turn
            ca_certs=ca_file or None,
            cert_reqs="CERT_REQUIRED",
        )
        self._client = minio.Minio(url.netloc, access_key, secret_key, secure=url.scheme == "https", region=region, http_client=self._http)
        self._url = url._replace(path="")
        self._region = region
        self._credentials = Credentials(access_key, secret_key)
        # The SDK signs a digest of the payload (0.4 ms for 528 kB). Over TLS and the loopback interface only the request is signed, and the
        # object streams from the file. Amazon's own addresses hold the bucket's name in the host, which the SDK knows to build.
        self._streams = (url.scheme == "https" and not url.netloc.endswith("amazonaws.com")) or _is_loopback(url.hostname or "")

    def put(self, bucket: str, key: str, content: BinaryIO, size_bytes: int) -> None:
        """See `ObjectStore.put`."""
        with self._explained(bucket, key):
            if size_bytes <= MULTIPART_FROM_BYTES and self._streams:
                self._put_streaming(bucket, key, content, size_bytes)
            else:
                # The SDK wants parts of at least 5 MiB, and takes an object of up to one part's size in a single request.
                part = max(PART_BYTES, -(-size_bytes // 9_999)) if size_bytes > MULTIPART_FROM_BYTES else MULTIPART_FROM_BYTES
                try:
                    self._client.put_object(
                        bucket_name=bucket, object_name=key, data=content, length=size_bytes, part_size=part, num_parallel_uploads=1
                    )
                except OSError as error:
                    if "not having enough data" in str(error):
                        raise ValueError(f"the content of {key} ends before {size_bytes} bytes") from None
                    raise

    def _put_streaming(self, bucket: str, key: str, content: BinaryIO, size_bytes: int) -> None:
        url = self._url._replace(path=f"/{bucket}/{quote(key)}")
        now = datetime.now(UTC)
        headers: dict[str, str | list[str] | tuple[str]] = {
            "Host": url.netloc,
            "Content-Type": "application/octet-stream",
            "x-amz-content-sha256": _UNSIGNED,
            "x-amz-date": f"{now:%Y%m%dT%H%M%SZ}",
        }
        signed = sign_v4_s3(
            method="PUT",
            url=url,
            region=self._region,
            headers=headers,
            credentials=self._credentials,
            content_sha256=_UNSIGNED,
            date=now,
        )
        body = _Exactly(content, size_bytes) if size_bytes else b""
        try:
            response = self._http.urlopen(
                "PUT", url.geturl(), body=body, headers={**signed, "Content-Length": str(size_bytes)}, redirect=False
            )
        except _EndedEarlyError:
            raise ValueError(f"the content of {key} ends before {size_bytes} bytes") from None
        if response.status != 200:
            raise S3Error.fromxml(response) if response.data.startswith(b"<") else ServerError("no answer in XML", response.status)

    @contextmanager
    def open(self, bucket: str, key: str, offset: int = 0, size_bytes: int | None = None) -> Iterator[BinaryIO]:
        """See `ObjectStore.open`."""
        with self._explained(bucket, key):
            response = self._client.get_object(bucket_name=bucket, object_name=key, offset=offset, length=size_bytes or 0)
            try:
                yield cast("BinaryIO", response)
                if response.length_remaining in (0, None):
                    response.drain_conn()  # read to its end: the connection serves the next request
            finally:
                response.close()
                response.release_conn()

    def get(self, bucket: str, key: str, offset: int = 0, size_bytes: int | None = None) -> bytes:
        """See `ObjectStore.get`."""
        with self.open(bucket, key, offset, size_bytes) as stream:
            return stream.read()

    def stat(self, bucket: str, key: str) -> StoredObject:
        """See `ObjectStore.stat`."""
        with self._explained(bucket, key):
            found = self._client.stat_object(bucket_name=bucket, object_name=key)
            return _stored(bucket, found)

    def copy(self, bucket: str, key: str, to_bucket: str, to_key: str) -> None:
        """See `ObjectStore.copy`."""
        with self._explained(bucket, key):
            self._client.copy_object(bucket_name=to_bucket, object_name=to_key, source=CopySource(bucket, key))

    def delete(self, bucket: str, key: str) -> None:
        """See `ObjectStore.delete`."""
        with contextlib.suppress(NotFound), self._explained(bucket, key):
            self._client.remove_object(bucket_name=bucket, object_name=key)

    def list(self, bucket: str, prefix: str = "") -> Iterator[StoredObject]:
        """See `ObjectStore.list`."""
        with self._explained(bucket, prefix):
            for found in self._client.list_objects(bucket_name=bucket, prefix=prefix, recursive=True):
                yield _stored(bucket, found)

    def ensure_bucket(self, bucket: str, *, object_lock: bool = False) -> bool:
        """See `ObjectStore.ensure_bucket`."""
        with self._explained(bucket, ""):
            if self._has_bucket(bucket):
                return False
            try:
                self._client.make_bucket(bucket_name=bucket, object_lock=object_lock)
            except S3Error as error:
                if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                    raise
                return False  # someone else was faster
            return True

    def has_object_lock(self, bucket: str) -> bool:
        """See `ObjectStore.has_object_lock`."""
        with self._explained(bucket, ""):
            try:
                self._client.get_object_lock_config(bucket_name=bucket)
            except S3Error as error:
                if error.code != _NO_LOCK:
                    raise
                return False
            return True

    def retain(self, bucket: str, key: str, mode: RetentionMode, until: datetime) -> None:
        """See `ObjectStore.retain`."""
        with self._explained(bucket, key):
            try:
                found = self._client.get_object_retention(bucket_name=bucket, object_name=key)
            except S3Error as error:
                if error.code not in (_NO_LOCK, "NoSuchObjectLockConfiguration"):
                    raise
                found = None
            if found is None or found.retain_until_date < datetime.now(UTC):
                self._client.set_object_retention(bucket_name=bucket, object_name=key, config=Retention(mode.upper(), until))

    def is_retained(self, bucket: str, key: str) -> bool:
        """See `KeepingStore.is_retained`. A store that knows no legal hold has none."""
        with contextlib.suppress(NotFound), self._explained(bucket, key):
            with contextlib.suppress(S3Error):
                if self._client.is_object_legal_hold_enabled(bucket_name=bucket, object_name=key):
                    return True
            try:
                found = self._client.get_object_retention(bucket_name=bucket, object_name=key)
            except S3Error as error:
                if error.code not in (_NO_LOCK, "NoSuchObjectLockConfiguration"):
                    raise
                return False
            return found is not None and found.retain_until_date > datetime.now(UTC)
        return False

    def expire_after(self, bucket: str, days: int) -> None:
        """See `ObjectStore.expire_after`."""
        with self._explained(bucket, ""):
            found = self._client.get_bucket_lifecycle(bucket_name=bucket)
            others = [rule for rule in found.rules if rule.rule_id != _EXPIRE_RULE] if found else []
            rule = Rule(ENABLED, rule_filter=Filter(prefix=""), rule_id=_EXPIRE_RULE, expiration=Expiration(days=days))
            self._client.set_bucket_lifecycle(bucket_name=bucket, config=LifecycleConfig([*others, rule]))

    def check(self, bucket: str) -> None:
        """See `ObjectStore.check`."""
        with self._explained(bucket, ""):
            if not self._has_bucket(bucket):
                raise _no_bucket(bucket)

    def _has_bucket(self, bucket: str) -> bool:
        try:
            check_bucket_name(bucket, strict=True, s3_check=True)
            found: bool = self._client.bucket_exists(bucket_name=bucket)
        except ValueError:
            raise Misconfigured(
                "s3-bucket-invalid", f"{bucket!r} is no name for a bucket.", fix="Use 3 to 63 lower case letters, digits and hyphens."
            ) from None
        return found

    @contextmanager
    def _explained(self, bucket: str, key: str) -> Iterator[None]:
        """Turn what the SDK raises into what a caller can act on."""
        try:
            yield
        except urllib3.exceptions.SSLError:
            raise Misconfigured(
                "s3-certificate", f"The certificate of {self._endpoint} is not trusted.", fix="Set s3.ca_file to its authority's PEM file."
            ) from None
        except (urllib3.exceptions.HTTPError, ConnectionError, TimeoutError) as error:
            raise TryAgain(f"The object store at {self._endpoint} does not answer ({type(error).__name__}).") from None
        except S3Error as error:
            raise self._meaning(str(error.code), bucket, key) from None
        except MinioException as error:
            raise TryAgain(f"The object store at {self._endpoint} answered with an error ({type(error).__name__}).") from None

    def _meaning(self, code: str, bucket: str, key: str) -> Exception:
        if code in ("NoSuchKey", "NoSuchVersion", "ResourceNotFound"):
            return NotFound(f"There is no object {key} in bucket {bucket}.")
        if code == "NoSuchBucket":
            return _no_bucket(bucket)
        if code in ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AllAccessDisabled"):
            return Misconfigured(
                "s3-access-denied",
                f"The object store at {self._endpoint} refuses Hilum's keys for bucket {bucket} ({code}).",
                fix="Check s3.access_key, s3.secret_key and the rights of that key.",
            )
        if code in (_NO_LOCK, "InvalidBucketState") or (code == "InvalidRequest" and key):
            return Misconfigured(
                "s3-object-lock",
                f"Bucket {bucket} has no object lock ({code}).",
                fix="Object lock can only be had by a new bucket: name another.",
            )
        if code in ("RequestTimeTooSkewed", "RequestExpired"):
            return Misconfigured(
                "s3-clock", f"The object store at {self._endpoint} finds this clock wrong.", fix="Set the time on both machines (NTP)."
            )
        if code in ("AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"):
            return Misconfigured("s3-region", f"The object store at {self._endpoint} has another region ({code}).", fix="Set s3.region.")
        return TryAgain(f"The object store at {self._endpoint} answered {code}.")


def _no_bucket(bucket: str) -> Misconfigured:
    return Misconfigured(
        "s3-bucket-missing", f"The object store has no bucket {bucket!r}.", fix="Make it with `hilum provision`, or correct s3.bucket."
    )


def _stored(bucket: str, found: Any) -> StoredObject:
    modified: datetime = found.last_modified
    return StoredObject(bucket=bucket, key=found.object_name, size_bytes=found.size, modified_at=modified.astimezone(UTC))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _EndedEarlyError(Exception):
    """Raised into urllib3 while it sends, so that the connection is dropped and the object not stored."""


class _Exactly:
    """A body of exactly `left` bytes of `content`."""

    def __init__(self, content: BinaryIO, left: int) -> None:
        self._content = content
        self._left = left

    def read(self, size_bytes: int = -1) -> bytes:
        want = self._left if size_bytes < 0 else min(size_bytes, self._left)
        data = self._content.read(want) if want else b""
        if want and not data:
            raise _EndedEarlyError
        self._left -= len(data)
        return data
