"""The command `./dev bench ingest`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import ingest
from bench.ingest import goals, storing
from bench.ingest.disk import described
from bench.ingest.goals import Goal
from bench.ingest.huge import huge
from bench.ingest.publishing import parse, publish
from bench.ingest.receivers import RECEIVERS, available
from bench.ingest.sets import SETS
from bench.ingest.storing import SENDERS, Case, Results
from bench.ingest.stow import stow
from bench.report import Report

CHOICES: dict[str, Sequence[str]] = {
    "parts": ("store", "publish", "parse", "stow", "huge"),
    "sets": tuple(SETS),
    "receivers": tuple(RECEIVERS),
    "senders": tuple(SENDERS),
}


def cases_of(sets: Sequence[str], senders: Sequence[str], associations: Sequence[int], *, every: bool) -> list[Case]:
    """What is measured: CT in every way; the others with one sender and few associations unless `every` way is asked for.

    A set of one object goes over one association.
    """
    cases = []
    for name in sets:
        all_ways = every or name == "ct"
        for sender in senders if all_ways else senders[:1]:
            counts = associations[:1] if name == "multiframe" else associations if all_ways else associations[:2]
            cases += [Case(name, sender, count) for count in counts]
    return cases


def goals_of(results: Results) -> list[Goal]:
    """The goals of C-STORE, with what was measured for them."""
    found = []
    for sender in SENDERS:
        one, four = Case("ct", sender, 1), Case("ct", sender, 4)
        if not any(case in (one, four) for case, _ in results):
            continue
        found += [
            Goal(f"CT x1 of storescp ({sender})", storing.faster(results, one, "hilum", "storescp"), 1.0),
            Goal(f"CT x1 of Orthanc ({sender})", storing.faster(results, one, "hilum", "orthanc"), 2.0),
            Goal(f"CT x1 of pynetdicom ({sender})", storing.faster(results, one, "hilum", "pynetdicom"), 4.0),
            Goal(f"CT x4 of storescp ({sender})", storing.faster(results, four, "hilum", "storescp"), 1.2),
            Goal(f"CT x4 of storescp --fork ({sender})", storing.faster(results, four, "hilum", "fork"), 1.2),
            Goal(f"CT x1 without sync, of storescp ({sender})", storing.faster(results, one, "unsynced", "storescp"), 1.5),
        ]
    alone, sixteen = (storing.peak_of(results, Case("ct", "replay", count), "hilum") for count in (1, 16))
    large = storing.peak_of(results, Case("multiframe", "replay", 1), "hilum")
    if alone is not None:
        peaks = [peak for (_, name), runs in results.items() if name == "hilum" for peak in runs.peaks_mb]
        found.append(Goal("Hilum's memory, largest peak, MB", max(peaks), 140, most=True))
        found.append(Goal("memory: growth from 1 to 16 associations, MB", sixteen - alone if sixteen is not None else None, 20, most=True))
        # Two starts of the same program differ by some 100 kB.
        found.append(Goal("memory: growth with the multi-frame object, MB", large - alone if large is not None else None, 1, most=True))
    return found


def options(arguments: Sequence[str]) -> argparse.Namespace:
    """What is asked for. Ends the process with a sentence if that is not possible."""

    def some_of(known: Sequence[str]) -> Callable[[str], list[str]]:
        def read(text: str) -> list[str]:
            unknown = set(text.split(",")) - set(known)
            if unknown:
                raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))} is not one of {', '.join(known)}")
            return text.split(",")

        return read

    def numbers(text: str) -> list[int]:
        return [int(number) for number in text.split(",")]

    parser = argparse.ArgumentParser(prog="./dev bench ingest", description=ingest.__doc__)
    for name, known in CHOICES.items():
        parser.add_argument(f"--{name}", type=some_of(known), default=list(known), help=f"some of {','.join(known)}; default: all")
    parser.add_argument("--associations", type=numbers, default=[1, 4, 16], help="default: 1,4,16")
    parser.add_argument("--every", action="store_true", help="send the other sets in every way too, not only CT")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--part", type=float, default=1.0, help="send this part of each set only")
    parser.add_argument("--huge-mb", type=int, default=2000)
    parser.add_argument("--quick", action="store_true", help="one round, a tenth of each set, no huge object")
    given = parser.parse_args(arguments)
    if given.quick:
        given.rounds, given.part = 1, min(given.part, 0.1)
        given.parts = [part for part in given.parts if part != "huge"]
    return given


def is_full(given: argparse.Namespace) -> bool:
    """Whether the run measures all that the committed result has."""
    return given.part == 1.0 and all(getattr(given, name) == list(known) for name, known in CHOICES.items())


def store(report: Report, given: argparse.Namespace, files: dict[str, list[Path]], folder: Path) -> list[Goal]:
    """C-STORE with all receivers."""
    receivers = available(given.receivers)
    missing = [RECEIVERS[name].title for name in given.receivers if RECEIVERS[name] not in receivers]
    report.say(
        "C-STORE: Hilum syncs each object to disk before it acknowledges it, and so does Orthanc; the others do not. "
        "The clock starts once Hilum's spare spool files are there, as they are from a receiver's first second on. "
        "`replay` counts from the first connection to the last answer, `dcmsend` its whole process. "
        f"Not installed: {', '.join(missing) or 'none'}."
    )
    cases = cases_of(given.sets, given.senders, given.associations, every=given.every)
    results = storing.run(receivers, cases, given.rounds, files, folder)
    storing.tell(report, results, files)
    return goals_of(results)


def main(arguments: Sequence[str]) -> None:
    given = options(arguments)
    report = Report("ingest", "Ingest: objects acknowledged per second, and what it takes")
    began = time.monotonic()
    wanted: list[Goal] = []
    needed = given.sets if "store" in given.parts else []
    with tempfile.TemporaryDirectory(prefix="hilum-bench-") as name:
        folder = Path(name)
        files = {each: SETS[each].write(folder / each, given.part) for each in dict.fromkeys([*needed, "ct"])}
        report.say(described(folder))
        if "store" in given.parts:
            wanted += store(report, given, files, folder)
        if "publish" in given.parts:
            wanted += publish(report, max(20, round(300 * given.part)), given.rounds, folder)
        if "parse" in given.parts:
            wanted += parse(report, files["ct"], folder)
        if "stow" in given.parts:
            wanted += stow(report, files["ct"], [count for count in given.associations if count <= 4], given.rounds, folder)
        if "huge" in given.parts:
            wanted += huge(report, given.huge_mb * 10**6, folder)
    goals.tell(report, wanted)
    report.say(f"It took {(time.monotonic() - began) / 60:.0f} minutes.")
    if is_full(given):
        report.write()
    else:
        print("Nothing is written: this was no full run.", file=sys.stderr)
