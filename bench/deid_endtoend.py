"""De-identified end to end beside Orthanc: from dcmsend, archived, by the policy `basic` to dcmtk's storescp."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psutil
import psycopg
from pydicom import dcmread

from bench.endtoend import FILES_HELP, HILUM, SHAPES, System, count_files, originals_in, settled
from bench.ingest.sets import SETS
from bench.peers import free_port, installed, orthanc, storescp
from bench.report import Report
from bench.running import hilum, running_hilum
from hilum.synthetic import write_ct_study

GOAL = 1.5
#: Each instance as it comes, by UIDs that the script remembers, lest each become a study of its own.
PER_INSTANCE = """
local known = {}
local function like(level, original)
  if known[original] == nil then
    known[original] = RestApiGet('/tools/generate-uid?level=' .. level)
  end
  return known[original]
end
function OnStoredInstance(instanceId, tags, metadata, origin)
  if origin['RequestOrigin'] ~= 'Lua' then
    local replace = {
      PatientID = like('patient', 'patient ' .. tags['PatientID']),
      StudyInstanceUID = like('study', tags['StudyInstanceUID']),
      SeriesInstanceUID = like('series', tags['SeriesInstanceUID']),
    }
    local made = RestApiPost('/instances/' .. instanceId .. '/anonymize', DumpJson({Replace = replace, Force = true}, true))
    SendToModality(ParseJson(RestApiPost('/instances', made))['ID'], 'pacs')
  end
end
"""
#: The whole study, once nothing came for a second (its shortest), and one job that sends what was made.
STABLE_STUDY = """
function OnStableStudy(studyId, tags, metadata)
  if metadata['AnonymizedFrom'] == nil then
    local made = ParseJson(RestApiPost('/studies/' .. studyId .. '/anonymize', '{}'))
    RestApiPost('/modalities/pacs/store', '{"Resources": ["' .. made['ID'] .. '"], "Asynchronous": true}')
  end
end
"""
ORTHANCS: dict[str, tuple[str, dict[str, object]]] = {
    "Orthanc, each instance": (PER_INSTANCE, {"SaveJobs": False}),
    "Orthanc, each study": (STABLE_STUDY, {"SaveJobs": False, "StableAge": 1}),
    "Orthanc, each study, 4 threads": (
        STABLE_STUDY,
        {"SaveJobs": False, "StableAge": 1, "JobsEngineThreadsCount": {"ResourceModification": 4}},
    ),
}
#: Hilum with the second look as it is shipped.
SETTINGS = '[deid]\nkey_path = "{key}"\npolicies = "/nonexistent"\n'


class Measured(NamedTuple):
    """A system, and the processor time that it has used, with all that it started, in seconds."""

    system: System
    cpu_s: Callable[[], float]


def _cpu_s(pid: int) -> float:
    process, used = psutil.Process(pid), 0.0
    for each in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            used += times.user + times.system
    return used


@contextmanager
def systems(folder: Path, more: str) -> Iterator[dict[str, Measured]]:
    """Hilum with `more` settings and the Orthancs, each with a destination of its own; those that wait are at rest."""
    with ExitStack() as stack:
        found = {}
        key = folder / "key"
        hilum("deid", "keys", "make", "--key", key)
        stack.enter_context(storescp(folder / "from-hilum", pacs := free_port()))
        running = stack.enter_context(running_hilum(folder, pacs, SETTINGS.format(key=key) + more, pacs='policy = "basic"'))
        connection = stack.enter_context(psycopg.connect(running.settings.postgres.dsn, autocommit=True))
        own = System(running.port, folder / "from-hilum", lambda: settled(connection))
        found[HILUM] = Measured(own, lambda: _cpu_s(running.state.pid))
        for n, (name, (lua, own_settings)) in enumerate(ORTHANCS.items()):
            port, delivers = free_port(), folder / f"from-orthanc-{n}"
            stack.enter_context(storescp(delivers, pacs := free_port()))
            process = stack.enter_context(orthanc(folder / f"orthanc-{n}", port, free_port(), pacs, lua, own_settings))
            peer = System(port, delivers, partial(count_files, delivers))
            found[name] = Measured(peer, partial(_cpu_s, process.pid))
        yield found


def throughput(name: str, count: int, rounds: int, folder: Path, more: str = "") -> dict[str, list[tuple[float, float]]]:
    """De-identified objects/s of each system with the set `name`, turn about, each round with a study of its own; and the processor
    time for each object, in ms.
    """
    rates: dict[str, list[tuple[float, float]]] = {}
    with systems(folder, more) as measured:
        for n in range(rounds):
            patient = f"QZ{n:07d}"
            files = write_ct_study(folder / f"round-{n}", count, seed=n, patient=patient, **SHAPES[name])
            for system, (of, cpu_s) in measured.items():
                before = cpu_s()
                rate, _ = of.objects_per_s(files)
                cpu_ms = 1000 * (cpu_s() - before) / count
                rates.setdefault(system, []).append((rate, cpu_ms))
                print(f"{name}, round {n + 1}: {system}: {rate:.0f} objects/s, {cpu_ms:.1f} ms of processor each", file=sys.stderr)
                _look(of.delivers, patient)
    return rates


def _look(delivers: Path, patient: str) -> None:
    """End the benchmark if what arrived last names the patient, or does not say that it was de-identified."""
    last = max(delivers.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    if patient.encode() in last.read_bytes() or dcmread(last, stop_before_pixels=True).get("PatientIdentityRemoved") != "YES":
        sys.exit(f"{last} is not de-identified.")


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="./dev bench deid_endtoend", description=__doc__)
    parser.add_argument("--sets", default=",".join(SHAPES), help="ct, small")
    parser.add_argument("--part", type=float, default=1.0, help="of each set's objects")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", action="store_true", help=FILES_HELP)
    given = parser.parse_args(arguments)
    if not (installed("storescp") and installed("Orthanc")):
        sys.exit("This benchmark needs dcmtk and Orthanc: apt-get install dcmtk orthanc")
    title = f"End to end, de-identified: C-STORE in, archived{' as files' * given.files}, by the policy basic, C-STORE out"
    report = Report("deid_endtoend_files" if given.files else "deid_endtoend", title)
    for name in given.sets.split(","):
        with tempfile.TemporaryDirectory(prefix="hilum-bench-") as folder:
            count = max(1, round(SETS[name].count * given.part))
            more = originals_in(Path(folder), files=given.files)
            show(report, name, count, throughput(name, count, given.rounds, Path(folder), more))
    report.write()


def show(report: Report, name: str, count: int, rates: dict[str, list[tuple[float, float]]]) -> None:
    medians = {system: statistics.median(rate for rate, _ in found) for system, found in rates.items()}
    cpu = {system: statistics.median(cpu_ms for _, cpu_ms in found) for system, found in rates.items()}
    best = max(medians[system] for system in ORTHANCS)
    report.table(
        f"{count} {SETS[name].title} from dcmsend to storescp, de-identified, objects/s",
        ("System", "Median", "Rounds", "ms of processor for each"),
        [
            (system, f"{medians[system]:.0f}", ", ".join(f"{rate:.0f}" for rate, _ in found), f"{cpu[system]:.1f}")
            for system, found in rates.items()
        ],
    )
    report.say(
        "Hilum has archived, indexed and settled all of it, with the second look and a row of each object in the ledger; Orthanc has stored"
        f" originals and copies. Of the best Orthanc: {medians[HILUM] / best:.2f} (goal {GOAL})."
    )
