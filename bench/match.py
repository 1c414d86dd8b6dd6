"""Orders and studies held against each other: events a second, and the memory of 100,000 open orders and 20,000 open studies."""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import psutil

from bench.peers import free_port
from bench.report import Report
from hilum import bus, telemetry
from hilum.events import EVENTS, MatchRequested, OrderChanged, decode, encode
from hilum.host import spare_the_garbage_collector
from hilum.order_events import Code, Identifier, Order, Patient, RequestedProcedure, ScheduledStep
from hilum.pseudonyms import Pseudonyms
from hilum.runtime.state import Changes, Codec, PartitionState
from hilum.services import embedded
from hilum.settings import S3, Log, Postgres, Settings
from processors.match import Match
from processors.match.rows import Row

BATCH = 200
#: Why a figure may be low. A stage is one thread, so that its share of a core is at most about one.
ABOUT_CPU = (
    "CPU it had: CPU time by time, of one core. The stage alone waits for nothing, so that what it lacks was taken by other processes; "
    "what the worker lacks beyond that, it waited for Kafka."
)
ALONE = ("", "events", "outcomes", "events/s", "events a second of CPU", "CPU it had")
#: Of the worker's metrics: how many events it has committed.
CONSUMED = re.compile(rb'^hilum_events_consumed_total\{stage="match"\} (\S+)$', re.MULTILINE)
NAMES = Pseudonyms(b"of the bench alone, and of nobody else")
FAMILIES = ("Synthetic", "Sample", "Muster", "Beispiel", "Exemple", "Esempio", "Prueba", "Voorbeeld")


def an_order(number: int, now: datetime, version: int = 1, *, corrected: bool = False) -> OrderChanged:
    patient = number // 3  # some have several orders
    step = ScheduledStep(
        step_id=f"SPS{number:09}",
        modality=("CT", "MR", "DX")[number % 3],
        station_ae_titles=(f"STATION{number % 40:02}",),
        start_date=f"{now:%Y%m%d}",
        start_time="101500",
        start_at=now + timedelta(minutes=number % 600),
        description="Examination of the bench",
        protocols=(Code(value=f"P{number % 300}", meaning="A protocol of the bench", scheme="99BENCH"),),
    )
    procedure = RequestedProcedure(
        procedure_id=f"RP{number:09}",
        study_instance_uid=f"1.2.276.0.7230010.3.1.2.{number:012}",
        description="Examination of the bench",
        codes=(Code(value=f"C{number % 300}", meaning="A procedure of the bench", scheme="99BENCH"),),
        steps=(step,),
    )
    order = Order(
        order_id=f"{number:032x}",
        version=version,
        status="scheduled",
        patient=Patient(
            key=f"{patient:032x}",
            ids=(Identifier(value=f"B{patient:08}", issuer="NORTH"), Identifier(value=f"N{patient:011}", issuer="NATION")),
            name=f"{FAMILIES[patient % 8]}^Person{'A' if corrected else ''}{patient}",
            birth_date=f"19{patient % 100:02}0101",
            sex="FM"[patient % 2],
        ),
        procedures=(procedure,),
        accession=Identifier(value=f"ACC{number:09}", issuer="RIS"),
        placer=Identifier(value=f"PL{number:09}", issuer="HIS"),
        filler=Identifier(value=f"FI{number:09}", issuer="RIS"),
        sender="ris",
        said_at=now,
    )
    return OrderChanged(order=order, change="new" if version == 1 else "changed", message_id=f"m{number}", changed_at=now)


def a_study(number: int, now: datetime, *, of: int | None) -> MatchRequested:
    """Images of the order `of`, or of none."""
    patient = of // 3 if of is not None else 1_000_000 + number
    return MatchRequested(
        study_instance_uid=f"1.2.276.0.7230010.3.1.2.{of:012}" if of is not None else f"1.2.276.0.7230010.3.1.9.{number:012}",
        accessions=(Identifier(value=f"ACC{of:09}" if of is not None else f"NONE{number:09}"),),
        patient_ids=(Identifier(value=f"B{patient:08}"),),
        patient_name=f"{FAMILIES[patient % 8]}^Person{patient}",
        patient_birth_date=f"19{patient % 100:02}0101",
        patient_sex="FM"[patient % 2],
        modalities=(("CT", "MR", "DX")[(of or 0) % 3],),
        sender=f"STATION{number % 40:02}",
        instances=100,
        first_received_at=now,
        requested_at=now,
    )


def events_of(orders: int, studies: int, now: datetime) -> Iterator[tuple[str, Iterator[OrderChanged | MatchRequested]]]:
    """Phases of a bad month: all orders wait, studies come for some of them and for none, orders are corrected afterwards."""
    chance = random.Random(6)  # no secret
    yield "orders come", (an_order(number, now) for number in range(orders))
    mine = [chance.randrange(orders) if number % 5 else None for number in range(studies)]
    yield "studies come, four of five with an order", (a_study(number, now, of=of) for number, of in enumerate(mine))
    late = [of for of in mine if of is not None] + [chance.randrange(orders) for _ in range(studies // 2)]
    chance.shuffle(late)
    yield (
        "orders are corrected, also after their images",
        (an_order(number, now, version=2 + place, corrected=place % 2 == 0) for place, number in enumerate(late)),
    )


def engine(orders: int, studies: int) -> tuple[list[list[object]], dict[str, Any]]:
    """The stage alone: events decoded, rows and outcomes encoded, as in a worker, without Kafka."""
    now = datetime(2026, 1, 2, 8, tzinfo=UTC)
    match, state, codec = Match(Settings(), NAMES, now=lambda: now), PartitionState(0), Codec(Row)
    before = psutil.Process().memory_info().rss
    rows: list[list[object]] = []
    for phase, events in events_of(orders, studies, now):
        count = said = 0
        took = worked = 0.0
        while values := [(type(event), encode(event)) for event in islice(events, BATCH)]:
            began, cpu = time.perf_counter(), time.process_time()
            changes = Changes(state, codec)
            for kind, value in values:
                for outcome in match.handle(decode(kind, value), changes):
                    msgspec.json.encode(outcome)
                    said += 1
                changes.keep()
            changes.commit()
            took += time.perf_counter() - began
            worked += time.process_time() - cpu
            count += len(values)
        rows.append([phase, f"{count:,}", f"{said:,}", f"{count / took:,.0f}", f"{count / worked:,.0f}", f"{worked / took:.0%}"])
    return rows, {
        "rows": f"{len(state.rows):,}",
        "bytes of rows": f"{sum(map(len, state.rows.values())):,}",
        "RSS before MB": round(before / 2**20),
        "RSS after MB": round(psutil.Process().memory_info().rss / 2**20),
    }


def on_kafka(settings: Settings, folder: Path, orders: int, studies: int) -> list[list[object]]:
    """A worker as it runs at a site, phase by phase: how long it takes for what is in its topics, and what memory its process has then."""
    settings = msgspec.structs.replace(settings, kafka=msgspec.structs.replace(settings.kafka, prefix=f"bench{time.time_ns()}."))
    bus.provision_topics(settings, [*(kind.topic for kind in EVENTS.values()), bus.state_topic("match")])
    producer, writer = bus.producer(settings), bus.Writer(settings, "bench")
    rows: list[list[object]] = []
    for phase, events in events_of(orders, studies, datetime.now(UTC)):
        count = 0
        for event in events:
            record = writer.record(event, f"{phase}-{count}")
            while True:
                try:
                    producer.produce(record.topic, record.value, record.key, headers=record.headers)
                    break
                except BufferError:
                    producer.poll(0.1)
            producer.poll(0)
            count += 1
        producer.flush()
        rows.append([phase, f"{count:,}", *worked_off(settings, folder, count)])
    return rows


def worked_off(settings: Settings, folder: Path, count: int) -> list[object]:
    """Start `hilum run match`, and measure from its first commit to its last.

    Gives events a second, events a second of its CPU time, the share of a core that it had, and its memory in MB.
    """
    port, file = free_port(), folder / "match.toml"
    kafka = "\n".join(f"{name} = {json.dumps(value)}" for name, value in msgspec.to_builtins(settings.kafka).items())
    file.write_text(
        f'data = "{folder}/match"\n[kafka]\n{kafka}\n[postgres]\ndsn = "postgresql://none"\n[s3]\nendpoint = "http://none"\n'
        f"[probe]\nport = {port}\n"
    )
    command = [sys.executable, "-m", "hilum", "run", "match", "--config", str(file)]
    with (folder / "match.log").open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | {"HILUM_SLOT": "0"})

    def handled() -> int | None:
        """Events of which all is committed; None as long as it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                found = CONSUMED.search(answer.read())
                return int(float(found[1])) if found else 0
        except OSError:
            return None

    try:
        while not (first := handled()):
            assert process.poll() is None, (folder / "match.log").read_text()
            time.sleep(0.01)
        worker = psutil.Process(process.pid)
        began, cpu = time.monotonic(), sum(worker.cpu_times()[:2])
        while (handled() or 0) < count:
            time.sleep(0.05)
        took, worked, counted = time.monotonic() - began, sum(worker.cpu_times()[:2]) - cpu, count - first
        return [f"{counted / took:,.0f}", f"{counted / worked:,.0f}", f"{worked / took:.0%}", round(worker.memory_info().rss / 2**20)]
    finally:
        process.terminate()
        process.wait()


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(prog="bench match", description=__doc__)
    parser.add_argument("--orders", type=int, default=100_000)
    parser.add_argument("--studies", type=int, default=20_000)
    parser.add_argument("--engine", action="store_true", help="without Kafka; writes no result")
    options = parser.parse_args(list(arguments))
    telemetry.configure(Settings(log=Log(level="ERROR")))
    spare_the_garbage_collector()
    report = Report("match", "Orders and studies: how many events a second, and how much memory")
    if options.engine:
        alone, memory = engine(options.orders, options.studies)
        report.table(f"The stage alone, {BATCH} events in a transaction", ALONE, alone)
        report.table("Memory of the process", list(memory), [list(memory.values())])
        return
    servers = Settings(postgres=Postgres(dsn="postgresql://none"), s3=S3(endpoint="http://none"))
    with (
        tempfile.TemporaryDirectory(prefix="hilum-bench-", dir=os.environ.get("TMPDIR")) as folder,
        embedded(Path(folder), servers) as endpoints,
    ):
        worker = on_kafka(endpoints.filled_into(servers), Path(folder), options.orders, options.studies)
    columns = ["", "events", "events/s", "events a second of CPU", "CPU it had", "RSS MB"]
    report.table("hilum run match, started anew for each phase", columns, worker)
    alone, memory = engine(options.orders, options.studies)
    report.table(f"The stage alone, {BATCH} events in a transaction", ALONE, alone)
    report.say(ABOUT_CPU)
    report.table("Rows of the stage alone", list(memory)[:2], [list(memory.values())[:2]])
    report.write()
