"""The command `./dev bench ingest`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench import ingest
from bench.ingest import goals, storing
from bench.ingest.goals import Goal
from bench.ingest.huge import huge
from bench.ingest.publishing import parse, publish
from bench.ingest.receivers import RECEIVERS, available
from bench.ingest.sets import SETS
from bench.ingest.storing import SENDERS, Case, Results
from bench.ingest.stow import stow
from bench.report import Report

PARTS = ("store", "publish", "parse", "stow", "huge")


def cases_of(sets: Sequence[str], senders: Sequence[str], associations: Sequence[int]) -> list[Case]:
    """What is measured: CT in every way; the others with `replay`, if that is there, which alone does not set the pace itself."""
    cases = []
    for name in sets:
        few = senders if name == "ct" or "replay" not in senders else ["replay"]
        cases += [Case(name, sender, count) for sender in few for count in associations if name != "multiframe" or count == associations[0]]
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


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="./dev bench ingest", description=ingest.__doc__)
    parser.add_argument("--parts", default=",".join(PARTS), help="some of %(default)s")
    parser.add_argument("--sets", default=",".join(SETS), help="some of %(default)s")
    parser.add_argument("--receivers", default=",".join(RECEIVERS), help="some of %(default)s")
    parser.add_argument("--senders", default=",".join(SENDERS), help="some of %(default)s")
    parser.add_argument("--associations", default="1,4,16", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--part", type=float, default=1.0, help="send this part of each set only")
    parser.add_argument("--huge-mb", type=int, default=2000)
    parser.add_argument(
        "--quick", action="store_true", help="one round with a tenth of each set, without the huge object; writes no result"
    )
    given = parser.parse_args(arguments)
    if given.quick:
        given.rounds, given.part = 1, min(given.part, 0.1)
    parts = [part for part in given.parts.split(",") if part != "huge" or not given.quick]
    sets, associations = given.sets.split(","), [int(count) for count in given.associations.split(",")]
    unknown = [*(set(given.parts.split(",")) - set(PARTS)), *(set(sets) - set(SETS)), *(set(given.senders.split(",")) - set(SENDERS))]
    if unknown or set(given.receivers.split(",")) - set(RECEIVERS):
        parser.error("there is something that is not known; see --help")
    receivers = available(given.receivers.split(","))
    report = Report("ingest", "Ingest: objects acknowledged per second, and what it takes")
    began = time.monotonic()
    wanted: list[Goal] = []
    with tempfile.TemporaryDirectory(prefix="hilum-bench-") as name:
        folder = Path(name)
        needed = [*sets] if "store" in parts else []
        needed += ["ct"] if "ct" not in needed and {"parse", "stow"} & set(parts) else []
        files = {each: SETS[each].write(folder / each, given.part) for each in needed}
        if "store" in parts:
            report.say(
                "C-STORE: Hilum syncs each object to disk before it acknowledges, and so does Orthanc; the others do not. "
                "`replay` counts from the first connection to the last answer, `dcmsend` its whole process. "
                f"Not installed: {', '.join(set(given.receivers.split(',')) - {each.name for each in receivers}) or 'none'}."
            )
            results = storing.run(receivers, cases_of(sets, given.senders.split(","), associations), given.rounds, files, folder)
            storing.tell(report, results, files)
            wanted += goals_of(results)
        if "publish" in parts:
            wanted += publish(report, max(20, round(300 * given.part)), given.rounds, folder)
        if "parse" in parts:
            wanted += parse(report, files["ct"], folder)
        if "stow" in parts:
            wanted += stow(report, files["ct"], [count for count in associations if count <= 4], given.rounds, folder)
        if "huge" in parts:
            wanted += huge(report, given.huge_mb * 10**6, folder)
    goals.tell(report, wanted)
    report.say(f"It took {(time.monotonic() - began) / 60:.0f} minutes.")
    if given.quick or given.part != 1.0:
        print("Nothing is written: this was no full run.", file=sys.stderr)
        return
    report.write()
