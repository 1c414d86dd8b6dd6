"""Broken objects with planted names against what leaves de-identified: none of them leaves, and what does is read by others."""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from io import BytesIO
from itertools import islice
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace
from pydicom import config, dcmread
from pydicom.dataset import Dataset

from bench.deid_mutations import forms, mutated, patient
from bench.report import Report
from processors.anonymize.held import Held
from processors.anonymize.keys import key_of
from processors.anonymize.options import Option
from processors.anonymize.outgoing import outgoing
from processors.anonymize.policy import Policy, policy_of
from processors.anonymize.pseudonyms import Pseudonyms
from processors.anonymize.result import Context
from processors.anonymize.verify import Fact, Scope, facts_of, second_look

_KEY = key_of(bytes(range(1, 33)))
#: So that images of test files leave, whatever is in their pixels.
_CLEANED = ("sr-text", "presentation-state", "rt-label", "unused-bits")
_PASSED = ("secondary-capture", "ultrasound", "radiograph", "screen-save", "photograph", "burned-in", "fluoroscopy", "surface")
_KINDS = "\n".join([*(f'kinds.{kind} = "clean"' for kind in _CLEANED), *(f'kinds.{kind} = "pass: test images"' for kind in _PASSED)])
#: What contradicts others, and what keeps UIDs, whatever is in them.
_LEFT_OUT = (Option.RETAIN_FULL_DATES, Option.RETAIN_UIDS)
_RESEARCH = (
    "retain-modified-dates",
    "retain-device-identity",
    "retain-patient-characteristics",
    "retain-safe-private",
    "clean-descriptors",
    "clean-structured-content",
)
_OPTIONS: dict[str, tuple[str, ...]] = {
    "basic": (),
    "research": _RESEARCH,
    "masked": (),
    "everything": tuple(option.keyword for option in Option if option.column and option not in _LEFT_OUT),
}
_MASKS = "masks = [{ boxes = [[0, 0, 4, 4]] }]"
DEFLATED = b"1.2.840.10008.1.2.1.99"
_AT_ONCE = 100


class Trial(Struct, frozen=True, kw_only=True):
    """What became of one broken object."""

    seed: str
    policy: str
    changes: list[str]
    #: What left; `b""` if nothing did.
    left: bytes
    #: Why nothing left.
    reason: str
    wrong: str = ""


@cache
def _policy(name: str) -> Policy:
    return policy_of(f"options = {list(_OPTIONS[name])!r}\n{_KINDS}\n{_MASKS if name == 'masked' else ''}", name)


@cache
def _facts(name: str) -> frozenset[Fact]:
    """Whose objects they are, which a delivery knows from elsewhere."""
    return frozenset(facts_of(patient(), Scope.of(_OPTIONS[name], (), name)))


def trial(originals: Mapping[str, bytes], seed: str) -> Trial:
    """Break an object, and have it leave as a delivery would; every other one by the engine that uses pydicom."""
    file, changes = mutated(originals, seed)
    number = zlib.crc32(seed.encode())
    name = list(_OPTIONS)[number % len(_OPTIONS)]
    policy = _policy(name)
    context = Context(policy=policy, pseudonyms=Pseudonyms(_KEY, policy.domain))
    told = Trial(seed=seed, policy=name, changes=changes, left=b"", reason="not DICOM")
    if file[128:132] != b"DICM":
        return told
    try:
        made = b"".join(outgoing(file, context, trace=bool(number & 8)).parts)
    except Held as stop:
        said = f"{stop} {stop.fix} {stop.place}".casefold().encode()
        wrong = "A sentence shows what was planted." if any(form in said for form in forms()) else ""
        return replace(told, reason=stop.reason, wrong=wrong)
    if second_look(file, made, Scope.of(policy.options, (), policy.name), _facts(name)):
        return replace(told, reason="second-look")
    return replace(told, left=made, reason="", wrong=_wrong(made))


def _wrong(made: bytes) -> str:
    """What is wrong with an object that leaves, as bytes and for pydicom."""
    searched = made
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds = dcmread(BytesIO(made))
            count = sum(1 for _ in _walked(ds))
            if DEFLATED in made[:1000]:
                at = 144 + int.from_bytes(made[140:144], "little")
                searched += zlib.decompressobj(wbits=-zlib.MAX_WBITS).decompress(made[at:])
    except Exception as error:
        return f"pydicom does not read it: {type(error).__name__}"
    if not count or ds.get("PatientIdentityRemoved") != "YES":
        return "It does not say that it is de-identified."
    return planted_in(searched)


def _walked(ds: Dataset) -> Iterator[int]:
    """Every element, read by its VR as far as it is a sequence."""
    for tag in sorted(ds.keys()):
        raw = ds.get_item(tag)
        yield int(tag)
        if raw is not None and raw.VR == "SQ":
            for item in ds[tag].value:
                yield from _walked(item)


def planted_in(searched: bytes) -> str:
    """Which of what was planted is in some bytes, in any of its forms, and where; empty if nothing is."""
    low = searched.lower()
    found = [form for form in forms() if form in low or form in searched]
    return f"It holds {found[0]!r}, at {low.find(found[0])} of {len(low)}." if found else ""


def read_by_dcmtk(trials: Iterable[Trial], folder: Path) -> dict[str, str]:
    """What dcmdump says of objects that leave, by seed: those that it does not read, and those in whose text something planted is."""
    wrong: dict[str, str] = {}
    batch = [each for each in trials if each.left]
    while batch:
        now, batch = batch[:_AT_ONCE], batch[_AT_ONCE:]
        paths = {}
        for number, each in enumerate(now):
            path = folder / f"{number}.dcm"
            path.write_bytes(each.left)
            paths[each.seed] = path
        whole = subprocess.run(["dcmdump", "-q", "+L", *paths.values()], capture_output=True, check=False)
        if whole.returncode or b"E: " in whole.stderr or planted_in(whole.stdout):
            for seed, path in paths.items():
                one = subprocess.run(["dcmdump", "-q", "+L", path], capture_output=True, check=False)
                said = planted_in(one.stdout)
                if one.returncode or b"E: " in one.stderr or said:
                    wrong[seed] = said or f"dcmdump does not read it: {one.stderr.decode('latin-1')[-200:]}"
    return wrong


def originals() -> dict[str, bytes]:
    """Files that are broken: pydicom's, and what highdicom derives."""
    from tests.processors.anonymize.highdicom_objects import objects
    from tests.processors.anonymize.objects import samples

    return {name: file for name, file in (samples() | objects()).items() if len(file) < 150_000}


def run(files: Mapping[str, bytes], first: str, count: int, folder: Path) -> tuple[Counter[str], list[Trial]]:
    """So many trials: how many ended how, and those that went wrong."""
    outcomes: Counter[str] = Counter()
    failed: list[Trial] = []
    seeds = iter(f"{first}/{number}" for number in range(count))
    mode, config.settings.reading_validation_mode = config.settings.reading_validation_mode, config.IGNORE
    try:
        while names := list(islice(seeds, _AT_ONCE)):
            done = [trial(files, seed) for seed in names]
            outcomes.update(each.reason or "left" for each in done)
            dumped = read_by_dcmtk(done, folder)
            failed += [replace(each, wrong=each.wrong or dumped[each.seed]) for each in done if each.wrong or each.seed in dumped]
    finally:
        config.settings.reading_validation_mode = mode
    return outcomes, failed


def main(arguments: list[str]) -> None:
    """Run them, and write how they ended; what went wrong is printed with its seed."""
    parser = argparse.ArgumentParser(prog="./dev bench deid_fuzz")
    parser.add_argument("--objects", type=int, default=10_000)
    parser.add_argument("--seed", default="1")
    given = parser.parse_args(arguments)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="hilum-bench-") as folder:
        outcomes, failed = run(originals(), given.seed, given.objects, Path(folder))
    for each in failed:
        print(f"{each.seed} under {each.policy}: {each.wrong} After {', '.join(each.changes)}.")
    report = Report("deid_fuzz", "De-identification of broken objects")
    report.table("How they ended", ["outcome", "objects"], [(name, f"{count:,}") for name, count in outcomes.most_common()])
    report.say(f"Objects in which something planted was found, or that pydicom or dcmdump does not read: {len(failed)}.")
    report.say(f"{given.objects:,} objects in {time.perf_counter() - began:.0f} s, seed {given.seed}.")
    report.write()
    if failed:
        raise SystemExit(1)
