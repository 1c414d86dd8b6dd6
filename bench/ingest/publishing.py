"""From the spool to the object store and Kafka: the role `publish` with the servers that Hilum embeds; and the header's cost."""

from __future__ import annotations

import http.client
import json
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil
from pydicom import dcmread

from bench.ingest.goals import Goal
from bench.peers import free_port, running
from bench.report import Report
from hilum import bus
from hilum.dicom import file_meta
from hilum.dicom.dataset import fitted, read_header
from hilum.events import EVENTS
from hilum.host import spare_the_garbage_collector
from hilum.services import embedded
from hilum.settings import Postgres, Settings
from hilum.spool import Arrival, Spool, mapped
from hilum.store import open_store
from hilum.synthetic import write_ct_study
from hilum.testing import eventually
from ingest.describe import describe, protected_tags

_EXPLICIT = "1.2.840.10008.1.2.1"
#: How long one round may take.
_PATIENCE_S = 120.0


def publish(report: Report, objects: int, rounds: int, folder: Path) -> list[Goal]:
    """The rate at which `objects` CT leave the spool, median of rounds; the first round, in which all is cold, does not count."""
    sets = [write_ct_study(folder / f"publish-{n}", objects, patient=f"SYNTH1{n:03d}") for n in range(rounds + 1)]
    data = folder / "publish"
    data.mkdir()
    with embedded(data, Settings(postgres=Postgres(dsn="postgresql://none"))) as endpoints:
        port = free_port()
        config = data / "hilum.toml"
        settings = endpoints.filled_into(Settings(data=str(data)))
        config.write_text(_settings(settings, data, port), encoding="utf-8")
        bus.provision_topics(settings, [kind.topic for kind in EVENTS.values()])
        open_store(settings).ensure_bucket(settings.s3.bucket)
        spool = Spool.of(settings)
        rates = []
        with running([sys.executable, "-m", "hilum.host", "publish", "--config", config], port, data / "publish.log") as process:
            eventually(lambda: _is_ready(port), _PATIENCE_S, what="the publisher is ready")
            for paths in sets:
                rates.append(_round(psutil.Process(process.pid), spool, paths))
                print(f"publish: {rates[-1]:.0f} objects/s", file=sys.stderr)
    counted = rates[1:]
    report.table(
        f"Publish: {objects} CT of 528 kB from the spool to S3 (synced) and Kafka, all on this machine",
        ("objects/s, median", "Rounds", "cold"),
        [(f"{statistics.median(counted):.0f}", ", ".join(f"{rate:.0f}" for rate in counted), f"{rates[0]:.0f}")],
    )
    return [Goal("publish, CT/s", statistics.median(counted), 250)]


def _settings(settings: Settings, data: Path, probe_port: int) -> str:
    kafka, s3 = settings.kafka, settings.s3
    tables: dict[str, dict[str, str | int]] = {
        "kafka": {
            "bootstrap": kafka.bootstrap,
            "security_protocol": kafka.security_protocol,
            "sasl_mechanism": kafka.sasl_mechanism,
            "sasl_username": kafka.sasl_username,
            "sasl_password": kafka.sasl_password,
        },
        "postgres": {"dsn": settings.postgres.dsn},
        "s3": {"endpoint": s3.endpoint, "access_key": s3.access_key, "secret_key": s3.secret_key, "sync_path": s3.sync_path},
        "probe": {"port": probe_port},
    }
    lines = [f"data = {json.dumps(str(data))}"]
    for table, values in tables.items():
        lines += [f"[{table}]", *(f"{name} = {json.dumps(value)}" for name, value in values.items())]
    return "\n".join(lines) + "\n"


def _round(publisher: psutil.Process, spool: Spool, paths: Sequence[Path]) -> float:
    """Fill the spool while the publisher stands still, let it go on, and wait until the spool is empty: objects/s."""
    publisher.suspend()
    for path in paths:
        raw = path.read_bytes()
        meta, at = file_meta.read_meta(raw[: file_meta.MAX_META_BYTES])
        incoming = spool.open(
            Arrival(
                adapter="dicom",
                transfer_syntax_uid=_EXPLICIT,
                sop_class_uid=meta[file_meta.SOP_CLASS_UID].rstrip(b"\0").decode(),
                sop_instance_uid=meta[file_meta.SOP_INSTANCE_UID].rstrip(b"\0").decode(),
                calling_aet="BENCH",
                called_aet="HILUM",
                peer="127.0.0.1",
            )
        )
        incoming.write(raw[at:])
        incoming.commit()
    began = time.monotonic()
    publisher.resume()
    eventually(lambda: not spool.waiting(), _PATIENCE_S, what="the spool is empty")
    return len(paths) / (time.monotonic() - began)


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with suppress(OSError):
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    return False


def parse(report: Report, paths: Sequence[Path], folder: Path) -> list[Goal]:
    """What it costs to read the header of each object, and what the publisher does with it besides."""
    spare_the_garbage_collector()  # as every process of Hilum does
    keep = protected_tags(Settings())
    spool = Spool(folder / "parse")
    receipts = []
    for path in paths:
        raw = path.read_bytes()
        _, at = file_meta.read_meta(raw[: file_meta.MAX_META_BYTES])
        incoming = spool.open(Arrival(adapter="dicom", transfer_syntax_uid=_EXPLICIT))
        incoming.write(raw[at:])
        receipts.append(incoming.commit())
    header_us, fitted_us, whole_us, pydicom_us = [], [], [], []
    for receipt, path in zip(receipts, paths, strict=True):
        with mapped(spool.path(receipt)) as content:
            _, at = file_meta.read_meta(content[: file_meta.MAX_META_BYTES])
            began = time.perf_counter()
            header = read_header(content, _EXPLICIT, start=at, keep=keep)
            read = time.perf_counter()
            fitted(header, keep)
            header_us.append(read - began)
            fitted_us.append(time.perf_counter() - read)
        began = time.perf_counter()
        describe(spool.path(receipt), receipt, "bucket", keep)
        whole_us.append(time.perf_counter() - began)
        began = time.perf_counter()
        dcmread(path, stop_before_pixels=True).to_json_dict()
        pydicom_us.append(time.perf_counter() - began)
    medians = [1e6 * statistics.median(each) for each in (header_us, fitted_us, whole_us, pydicom_us)]
    report.table(
        f"The header of {len(paths)} CT, µs per object, median",
        (
            "read",
            "cut to size, as JSON",
            "described (read, digest of all bytes, event)",
            "pydicom: dcmread, to_json_dict",
        ),
        [[f"{each:.0f}" for each in medians]],
    )
    return [Goal("header parse, µs", medians[0], 350, most=True)]
