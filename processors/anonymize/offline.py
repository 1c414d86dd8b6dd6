"""De-identification of files, without ledger and destinations: what `hilum deid preview`, `run` and `verify` do."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import partial
from mmap import ACCESS_READ, mmap
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct, structs
from pydicom import dcmread

from hilum.anonymizing import NotAnonymized, SurvivorOf
from hilum.deid_sections import Deid
from hilum.errors import HilumError, Misconfigured, Stopped
from processors.anonymize.about import SERIES, SOP_INSTANCE, STUDY
from processors.anonymize.delivering import Outgoing
from processors.anonymize.held import Held
from processors.anonymize.outgoing import looked_at
from processors.anonymize.pixels.beginning import mask_for
from processors.anonymize.placing import placed, tidied
from processors.anonymize.result import Action
from processors.anonymize.risks import Risks
from processors.anonymize.verify import second_look

if TYPE_CHECKING:
    from processors.anonymize.pictures import Pictures

#: Files larger than this are read where they lie, and not into memory.
LARGE_BYTES = 16 * 2**20
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
#: Files that are handed to a process at once.
_CHUNK = 8


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of one file."""

    path: str
    #: `there`: an earlier run wrote the same bytes. `skipped` is no DICOM file; `duplicate` is a file with the bytes of another, and
    #: `conflict` one of several with one SOP instance UID, in the run or in what earlier runs wrote.
    state: Literal["written", "there", "replaced", "duplicate", "conflict", "held", "skipped", "failed", "clean", "found", "no-original"]
    #: Where it was written.
    written: str = ""
    #: Why it was held: a code, a path of tags, a sentence, and what to do.
    reason: str = ""
    place: str = ""
    says: str = ""
    fix: str = ""
    #: UIDs of study, series and instance before and after; empty unless they were asked for.
    uids: tuple[str, ...] = ()
    new_uids: tuple[str, ...] = ()


class Preview(Struct, frozen=True, kw_only=True):
    """What a policy does with an object. It holds values of the object: it is shown, never logged."""

    path: str
    policy: str
    version: str
    actions: list[Action]
    #: Why it would not leave; empty if it would.
    held: Outcome | None = None
    #: How a mask of images like this one begins, as a policy's file has it; empty if it is no image.
    mask: str = ""
    #: Of which risky kinds it is, and what masks do.
    risks: Risks = Risks()


def files_in(path: Path) -> tuple[list[Path], int]:
    """The files that a path names, those of a folder sorted, and how many hidden ones, as what is half written is, were left out."""
    if path.is_file():
        return [path], 0
    found = sorted(each for each in path.rglob("*") if each.is_file())
    seen = [each for each in found if not each.name.startswith(".")]
    return seen, len(found) - len(seen)


def first_part10(files: Iterable[Path]) -> Path | None:
    """The first that is a Part 10 file (PS3.10 7.1), or cannot be read, which is for who opens it to say; None if none is."""
    for each in files:
        try:
            with each.open("rb") as file:
                if file.read(132)[128:] == b"DICM":
                    return each
        except OSError:
            return each
    return None


@contextmanager
def opened(path: Path) -> Iterator[bytes | mmap]:
    """A file to be read at will: a large one stays on the disk. Raises `OSError`. What was taken of it may outlive this."""
    with path.open("rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        view: mmap | None = None
        if size_bytes > LARGE_BYTES:
            with suppress(OSError):  # file systems that map none
                view = mmap(file.fileno(), 0, access=ACCESS_READ)
        if view is None:
            yield file.read()
            return
        try:
            yield view
        finally:
            with suppress(BufferError):  # a slice of it is alive; its memory goes with that
                view.close()


def preview(path: Path, outgoing: Outgoing) -> Preview:
    """What becomes of each element. Raises `HilumError` if the file cannot be read at all."""
    try:
        with opened(path) as original:
            return preview_of(str(path), original, outgoing)
    except OSError as error:
        raise Misconfigured("file-unreadable", f"{path} cannot be read ({error.strerror}).", fix="Check its rights.") from None


def preview_of(
    name: str, original: bytes | mmap, outgoing: Outgoing, *, unedited: bytes | mmap | None = None, survivor_of: SurvivorOf | None = None
) -> Preview:
    """What becomes of each element of an object that is called `name`. Arguments and what it raises are those of `Anonymizer.made`."""
    actions, held = outgoing.traced(original, unedited=unedited, survivor_of=survivor_of)
    outcome = _held(name, held) if held is not None else None
    return Preview(
        path=name,
        policy=outgoing.policy,
        version=outgoing.version,
        actions=actions,
        held=outcome,
        mask=mask_for(original),
        risks=outgoing.risks(original),
    )


def pictures(path: Path, outgoing: Outgoing, frame: int = 1) -> Pictures | None:
    """A frame before and after, counted from 1; None if there is no image. Raises `Misconfigured` if there is no such frame."""
    with opened(path) as original:
        return outgoing.pictures(original, frame)


def run(
    files: list[Path], out: Path, table: dict[str, Any], deid: Deid, *, jobs: int, with_uids: bool = False, replace: bool = False
) -> Iterator[Outcome]:
    """De-identify files into `out`, by their new UIDs. May be repeated: what is there with the same bytes stays.

    What is there with other bytes stays, too, unless it is to be replaced. Raises `Misconfigured` before the first file if policy or key
    is not as it must be, and `Stopped` if a process of it was ended.
    """
    outgoing = Outgoing.of(table, deid)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Misconfigured("out-unwritable", f"{out} cannot be made ({error.strerror}).", fix="Name another folder with --out.") from None
    there = tidied(out)

    def written(uid: str) -> Path | None:
        return there.get(outgoing.uid(uid)) if there and uid else None

    if jobs <= 1 or len(files) <= 1:
        one = partial(_one, outgoing, out, with_uids, replace)
        yield from _all(files, map(_instance_uid, files), written, lambda some: map(one, some))
        return
    with ProcessPoolExecutor(min(jobs, len(files)), get_context("spawn"), _begin, (table, deid, out, with_uids, replace)) as pool:
        try:
            uids = pool.map(_instance_uid, files, chunksize=_CHUNK)
            yield from _all(files, uids, written, lambda some: pool.map(_one_of_process, some, chunksize=_CHUNK))
        except BrokenProcessPool:
            raise Stopped(
                "A process that de-identifies was ended: by somebody, for want of memory, or since a file was cut while it was read.",
                fix="Run it again, with fewer --jobs if memory was short; what is written is whole.",
            ) from None


#: A file, and what an earlier run wrote under the UID that it will have.
_Work = tuple[Path, Path | None]


def _all(
    files: list[Path], uids: Iterable[str], written: Callable[[str], Path | None], made: Callable[[list[_Work]], Iterable[Outcome]]
) -> Iterator[Outcome]:
    """What becomes of each file: `made` is given those whose SOP instance UID no other has, and one of those that are the same file."""
    uid_of = dict(zip(files, uids, strict=True))
    several, rest = same_uid((uid, path) for path, uid in uid_of.items()), set[Path]()
    for group in several.values():
        first, *others = group
        alike = _are_equal(group)
        rest |= set(others if alike else group)
        for each in others if alike else group:
            yield _duplicate(each, first) if alike else _conflict(each, len(group))
    yield from made([(each, written(uid_of[each])) for each in files if each not in rest])


def same_uid(found: Iterable[tuple[str, Path]]) -> dict[str, list[Path]]:
    """Files that have their SOP instance UID in common, by that, in the order in which they come."""
    by_uid: dict[str, list[Path]] = {}
    for uid, path in found:
        if uid:
            by_uid.setdefault(uid, []).append(path)
    return {uid: paths for uid, paths in by_uid.items() if len(paths) > 1}


def _are_equal(paths: list[Path]) -> bool:
    digests = set()
    try:
        for path in paths:
            with path.open("rb") as file:
                digests.add(hashlib.file_digest(file, "sha256").digest())
    except OSError:
        return False
    return len(digests) == 1


def _duplicate(path: Path, of: Path) -> Outcome:
    return Outcome(path=str(path), state="duplicate", says=f"It has the bytes of {of}.")


def _conflict(path: Path, count: int) -> Outcome:
    return Outcome(
        path=str(path),
        state="conflict",
        reason="same-uid",
        says=f"{count} files with other bytes have its SOP instance UID: of one object, there would be several. None was written.",
        fix="Keep the right one, or put them into folders that are de-identified apart.",
    )


def verify(files: list[Path], originals: list[Path], outgoing: Outgoing) -> Iterator[Outcome]:
    """Hold each de-identified file against the original that it was made of by this policy and key, as the second look does."""
    found = [(outgoing.uid(uid), each) for each in originals if (uid := _instance_uid(each))]
    by_uid = dict(found)
    unclear = {uid for uid, paths in same_uid(found).items() if not _are_equal(paths)}
    for file in files:
        uid = _instance_uid(file)
        if not uid and first_part10([file]) is None:
            yield Outcome(path=str(file), state="skipped")
        elif not uid:
            says = "It cannot be read, and nothing is known of what is in it."
            yield Outcome(path=str(file), state="failed", says=says, fix="Check its rights; or make it anew, with `hilum deid run`.")
        elif uid not in by_uid:
            says = "None of the originals is what it was made of by this policy and key."
            yield Outcome(path=str(file), state="no-original", says=says, fix="Name the folder of its original, or the key of that time.")
        elif uid in unclear:
            says = "Several originals with other bytes have the UID of its original: of which it was made, nobody can tell."
            fix = "Name a folder with the one of which it was made."
            yield Outcome(path=str(file), state="conflict", reason="same-uid", says=says, fix=fix)
        else:
            with opened(by_uid[uid]) as original, opened(file) as output:
                hits = second_look(original, output, outgoing.scope)
            says = ", ".join(f"{hit.kind} at {hit.place}" for hit in hits)
            place = hits[0].place if hits else ""
            yield Outcome(path=str(file), state="found" if hits else "clean", reason="second-look" if hits else "", place=place, says=says)


_of_process: partial[Outcome] | None = None


def _begin(table: dict[str, Any], deid: Deid, out: Path, with_uids: bool, replace: bool) -> None:
    global _of_process  # what a process of the pool works with
    Thread(target=_end_with_parent, daemon=True).start()
    _of_process = partial(_one, Outgoing.of(table, deid), out, with_uids, replace)


def _end_with_parent() -> None:
    """Nobody takes what is made here once the process is gone that asked for it, be it by SIGKILL."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _one_of_process(work: _Work) -> Outcome:
    assert _of_process is not None
    return _of_process(work)


def _one(outgoing: Outgoing, out: Path, with_uids: bool, replace: bool, work: _Work) -> Outcome:
    path, there = work
    try:
        with opened(path) as original:
            found = _of_one(outgoing, out, path, original, there, replace)
            return structs.replace(found, uids=uids_in(path)) if with_uids and found.state != "skipped" else found
    except OSError as error:
        return Outcome(path=str(path), state="failed", says=f"It cannot be read ({error.strerror}).", fix="Check its rights.")


def _of_one(outgoing: Outgoing, out: Path, path: Path, original: bytes | mmap, there: Path | None, replace: bool) -> Outcome:
    if original[128:132] != b"DICM":
        return Outcome(path=str(path), state="skipped")
    try:
        made = outgoing.made(original)
    except NotAnonymized as error:
        return _held(path, error)
    except HilumError as error:
        return Outcome(path=str(path), state="failed", says=error.sentence, fix=error.fix)
    uids = (made.study_instance_uid or "none", made.series_instance_uid or "none", f"{made.sop_instance_uid}.dcm")
    file = out.joinpath(*uids)
    if there is not None and there != file:
        says = f"{there} has its new UID in another study or series: an earlier run made it of another file. It was not written."
        return _other_there(path, says, "Name another --out, or delete that file if it is of no use any more.")
    try:
        became = placed(file, made.parts, replace=replace)
    except OSError as error:
        return Outcome(path=str(path), state="failed", says=f"{out} takes no files ({error.strerror}).", fix="Make room there.")
    if became == "other-bytes":
        says = f"{file} is there with other bytes: of another original, policy or version, or changed since. It was not replaced."
        return _other_there(path, says, "Name another --out, or have it replaced with --replace.")
    new_uids = made.study_instance_uid, made.series_instance_uid, made.sop_instance_uid
    return Outcome(path=str(path), state=became, written=str(file), new_uids=new_uids)


def _other_there(path: Path, says: str, fix: str) -> Outcome:
    return Outcome(path=str(path), state="conflict", reason="other-bytes-there", says=says, fix=fix)


def _held(path: Path | str, error: NotAnonymized) -> Outcome:
    return Outcome(path=str(path), state="held", reason=error.reason, place=error.place, says=error.sentence, fix=error.fix)


def _instance_uid(path: Path) -> str:
    return next(iter(uids_in(path)[2:]), "")


def uids_in(path: Path) -> tuple[str, ...]:
    """Of study, series and instance; nothing of what cannot be read."""
    try:
        with opened(path) as original:
            seen = looked_at(original)
            return tuple(seen.uid(tag) for tag in (STUDY, SERIES, SOP_INSTANCE))
    except (Held, OSError):
        return uids_of_any(path)


def uids_of_any(path: Path) -> tuple[str, ...]:
    """As `uids_in`, of files that may be held, for any reason: ten times as slow."""
    try:
        ds = dcmread(path, stop_before_pixels=True, specific_tags=list(_UIDS))
        return tuple(str(ds.get(keyword, "") or "") for keyword in _UIDS)
    except Exception:  # of files that are broken in any way
        return ()
