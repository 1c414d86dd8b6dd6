"""C-STORE: every receiver in turn on a fresh folder, round after round, so that all share the machine's drift."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from bench.ingest.memory import peak_mb
from bench.ingest.receivers import RECEIVERS, Receiver
from bench.ingest.sets import SETS
from bench.peers import dcmsend
from bench.report import Report

#: Objects in a list of arguments; the system takes a few thousand.
_MOST_ARGUMENTS = 5000


@dataclass(frozen=True, order=True)
class Case:
    """What is sent, by which sender, over how many associations at once."""

    set: str
    sender: str
    associations: int


@dataclass
class Runs:
    """What one receiver did in one case."""

    seconds: list[float] = field(default_factory=list)
    peaks_mb: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


class Failed(Exception):
    """The receiver did not take everything. The text says why."""


Results = dict[tuple[Case, str], Runs]


def send_with_dcmsend(port: int, associations: int, paths: Sequence[Path], _: Path) -> float:
    """Seconds of the whole processes of dcmtk's `dcmsend`, their start included."""
    assert len(paths) <= _MOST_ARGUMENTS
    began = time.monotonic()
    with ThreadPoolExecutor(associations) as pool:
        ended = list(pool.map(lambda k: dcmsend(paths[k::associations], port, "SCP"), range(min(associations, len(paths)))))
    took = time.monotonic() - began
    for each in ended:
        if each.returncode:
            said = (each.stderr or each.stdout).strip().splitlines()
            raise Failed(said[-1] if said else f"dcmsend ended with {each.returncode}.")
    return took


def send_with_replay(port: int, associations: int, paths: Sequence[Path], folder: Path) -> float:
    """Seconds from the first connection to the last answer, without the sender's preparations."""
    names = folder / "replay.txt"
    names.write_text("\n".join(map(str, paths)), encoding="utf-8")
    command = [sys.executable, "-m", "bench.ingest.replay", str(port), str(associations), str(names)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise Failed(done.stderr.strip().splitlines()[-1])
    return float(done.stdout)


SENDERS: dict[str, Callable[[int, int, Sequence[Path], Path], float]] = {"replay": send_with_replay, "dcmsend": send_with_dcmsend}


def one(receiver: Receiver, case: Case, paths: Sequence[Path], folder: Path) -> tuple[float, float]:
    """Start the receiver, send everything, end it: the seconds, and the receiver's peak of memory in MB. Raises `Failed`."""
    folder.mkdir()
    os.sync()  # what others wrote is not to be paid for by whoever comes next
    try:
        with receiver.run(folder) as running:
            seconds = SENDERS[case.sender](running.port, case.associations, paths, folder)
            peak = peak_mb(running.pid)
            stored = running.stored()
        if stored != len(paths):
            raise Failed(f"It has {stored} of {len(paths)} objects.")
        return seconds, peak
    finally:
        shutil.rmtree(folder)


def run(receivers: Sequence[Receiver], cases: Sequence[Case], rounds: int, files: dict[str, list[Path]], folder: Path) -> Results:
    """All of it, turn about."""
    results: Results = defaultdict(Runs)
    for number in range(rounds):
        for case in cases:
            for receiver in _turn(receivers, number):
                runs = results[case, receiver.name]
                try:
                    seconds, peak = one(receiver, case, files[case.set], folder / "receiver")
                except Failed as error:
                    runs.failures.append(str(error))
                    continue
                runs.seconds.append(seconds)
                runs.peaks_mb.append(peak)
                rate = len(files[case.set]) / seconds
                words = f"{case.set:10} {case.sender:8} x{case.associations:<3} {receiver.title:22} {rate:8.1f} objects/s"
                print(f"round {number + 1}: {words}", file=sys.stderr)
    return results


def _turn(receivers: Sequence[Receiver], number: int) -> list[Receiver]:
    """Who begins changes from round to round."""
    at = number % len(receivers)
    return [*receivers[at:], *receivers[:at]]


def tell(report: Report, results: Results, files: dict[str, list[Path]]) -> None:
    """A table for each set and sender; then what failed."""
    for name, sender in dict.fromkeys((case.set, case.sender) for case, _ in results):
        count, size_bytes = len(files[name]), sum(path.stat().st_size for path in files[name])
        rows = [
            (case.associations, *_row(results, case, receiver, count, size_bytes))
            for case in dict.fromkeys(case for case, _ in results)
            if (case.set, case.sender) == (name, sender)
            for receiver in RECEIVERS
            if (case, receiver) in results
        ]
        what = f"{count} {SETS[name].title}" if name != "multiframe" else f"{size_bytes / 1e6:.0f} {SETS[name].title}"
        columns = ("Associations", "Receiver", "objects/s", "MB/s", "of storescp", "Rounds, s", "peak MB")
        report.table(f"{what}, sent with {sender}", columns, rows)
    for (case, receiver), runs in results.items():
        if runs.failures:
            what = f"{RECEIVERS[receiver].title}, {case.set} with {case.sender} x{case.associations}"
            report.say(f"{what}: failed {len(runs.failures)} times. {runs.failures[0]}")


def _row(results: Results, case: Case, receiver: str, count: int, size_bytes: int) -> tuple[str, ...]:
    runs, title = results[case, receiver], RECEIVERS[receiver].title
    if not runs.seconds:
        return title, "failed", "", "", "", ""
    seconds = statistics.median(runs.seconds)
    ratio = faster(results, case, receiver, "storescp")
    return (
        title,
        f"{count / seconds:.0f}" if count / seconds >= 10 else f"{count / seconds:.2f}",
        f"{size_bytes / 1e6 / seconds:.0f}",
        f"{ratio:.2f}" if ratio is not None else "",
        ", ".join(f"{each:.2f}" for each in runs.seconds),
        f"{max(runs.peaks_mb):.0f}" if receiver != "fork" else "",  # its children, which are gone, had the objects
    )


def faster(results: Results, case: Case, one: str, other: str) -> float | None:
    """By which factor the first receiver is faster, from the medians; None if one of them did not finish."""
    ours, theirs = (results.get((case, name)) for name in (one, other))
    if ours is None or theirs is None or not ours.seconds or not theirs.seconds:
        return None
    return statistics.median(theirs.seconds) / statistics.median(ours.seconds)


def peak_of(results: Results, case: Case, receiver: str) -> float | None:
    """The largest peak of memory in MB over all rounds; None if it was not measured."""
    runs = results.get((case, receiver))
    return max(runs.peaks_mb) if runs is not None and runs.peaks_mb else None
