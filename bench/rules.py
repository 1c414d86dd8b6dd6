"""How long fifty rules take on one object."""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from statistics import median, quantiles

from bench.report import Report
from hilum.events import InstanceAccepted, decode, encode
from hilum.host import spare_the_garbage_collector
from hilum.settings import Rule
from hilum.testing import an_instance
from processors.route.rules import Rules

GOAL_MS = 1.0
RULES = 50

#: Rules as sites write them, by what they cost.
KINDS: dict[str, list[str]] = {
    "one comparison": ['Modality == "M{n}"', "Rows > {n}", 'calling_aet == "CT{n}"', "SliceThickness <= 0.{n}"],
    "two or three comparisons": [
        'calling_aet == "CT{n}" and Modality == "CT"',
        'Modality == "MG" or (Modality == "DX" and Rows > {n})',
        'InstitutionName == null or InstitutionName.as_upper == "CLINIC {n}"',
    ],
    "lists": ['Modality in ["MR", "PT", "X{n}"]', '"DERIVED" in ImageType and Rows > {n}', 'Modality not in ["SR", "PR", "X{n}"]'],
    "regular expressions": ['StudyDescription =~~ "(?i)chest|thorax{n}"', 'StudyDescription =~ "CT .*{n}"'],
    "sequences and private elements": [
        'RequestedProcedureCodeSequence[0].CodeValue == "C{n}"',
        '$any([each.CodeValue == "C{n}" for each in ProcedureCodeSequence])',
        'tag("0009,1010", "CREATOR {n}") == "x"',
    ],
}
KINDS["mixed"] = [each for kind in KINDS.values() for each in kind]


def rules_of(patterns: list[str], count: int) -> Rules:
    """`count` rules of these patterns, of which no two are equal."""
    return Rules(
        Rule(name=f"rule-{n}", when=patterns[n % len(patterns)].replace("{n}", str(n)), to=(f"destination-{n % 12}",)) for n in range(count)
    )


def an_arrival() -> InstanceAccepted:
    """A CT slice as `route` reads it: its header is not decoded yet."""
    event = an_instance(
        ImageType=["ORIGINAL", "PRIMARY", "AXIAL"],
        Rows=512,
        Columns=512,
        SliceThickness="1.25",
        StudyDescription="CT Chest with contrast",
        InstitutionName="North Clinic",
        ProcedureCodeSequence=[
            {"00080100": {"vr": "SH", "Value": ["P1"]}, "00080102": {"vr": "SH", "Value": ["99SYN"]}},
            {"00080100": {"vr": "SH", "Value": ["P2"]}, "00080102": {"vr": "SH", "Value": ["99SYN"]}},
        ],
    )
    return InstanceAccepted.following(event)


def timed(rules: Rules, times: int) -> tuple[float, float]:
    """Median and 99th percentile in ms of asking all `rules` about an object that has just been decoded."""
    encoded = encode(an_arrival())
    took = []
    for _ in range(times):
        event = decode(InstanceAccepted, encoded)
        began = time.perf_counter()
        rules.matched(event)
        took.append(1000 * (time.perf_counter() - began))
    return median(took), quantiles(took, n=100)[98]


def main(arguments: list[str]) -> None:
    """Measure each kind of rule by itself, and all mixed."""
    options = argparse.ArgumentParser(prog="./dev bench rules")
    options.add_argument("--times", type=int, default=2000)
    options.add_argument("--quick", action="store_true", help="few repeats; writes no result")
    options.add_argument("--profile", action="store_true", help="show where the time of mixed rules goes; writes no result")
    given = options.parse_args(arguments)
    spare_the_garbage_collector()  # as every process of Hilum does
    if given.profile:
        rules, event = rules_of(KINDS["mixed"], RULES), an_arrival()
        with cProfile.Profile() as profile:
            for _ in range(500):
                rules.matched(event)
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
        return
    rows = []
    for kind, patterns in KINDS.items():
        began = time.perf_counter()
        rules = rules_of(patterns, RULES)
        compiled_ms = 1000 * (time.perf_counter() - began)
        typical, slow = timed(rules, 100 if given.quick else given.times)
        rows.append((kind, RULES, f"{typical:.2f}", f"{slow:.2f}", f"{compiled_ms:.0f}", "yes" if typical < GOAL_MS else "no"))
    report = Report("rules", "Rules: fifty on one object")
    report.table(
        "From the decoded event to its destinations", ["rules", "count", "median ms", "p99 ms", "compiled in ms", "under 1 ms"], rows
    )
    if not given.quick:
        report.write()
