"""One watched folder: which files are complete, taking them, and what becomes of them then.

A file is moved or deleted only after its objects are synced. Killed in between, the next run takes it once more: a duplicate, never
a loss.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Literal

import msgspec
from msgspec import Struct

from hilum import telemetry
from hilum.errors import Misconfigured
from hilum.media.errors import Skipped, Unreadable, Why
from hilum.media.importing import begins_as_archive
from hilum.media.intake import Intake
from hilum.media.sources import Archive, File, Identity, Member, delete, move, unused, walk
from hilum.records import Records
from hilum.role import Health
from hilum.services.files import private_folder
from hilum.settings import Folder, Settings
from hilum.spool import Spool, SpoolFull
from hilum.summed import Summed
from hilum.words import counted
from ingest.folder.memory import Memory

log = telemetry.logger("folder")

#: Files that are still being written, by the habits of those who write them.
_UNFINISHED = frozenset({".tmp", ".temp", ".part", ".partial", ".filepart", ".crdownload", ".download"})
#: What looks cut short may still be on its way: it counts as failed only after so many times `stable_s`.
_PATIENCE = 6
_MAYBE_UNFINISHED = frozenset({Why.TRUNCATED, Why.EMPTY, Why.ARCHIVE})
#: Troubles of the moment: the file stays where it is, and is tried again; unless some of an archive would come again each time.
_PASSING = frozenset({Why.READ_ERROR, Why.CHANGED})
_RETRY_S = 1.0
_SAVE_S = 5.0


class _Seen(Struct):
    """A file that waits."""

    identity: Identity
    #: When it was first seen as it is, and when it may be read; on the clock of `look`.
    since: float
    due: float


class _Result(Struct):
    """What was found in a file."""

    objects: int = 0
    size_bytes: int = 0
    #: What else it holds besides objects.
    others: int = 0
    problems: list[tuple[str, Unreadable]] = msgspec.field(default_factory=list)


class _Stopping(Exception):
    """The role ends: what is under way is left as it is."""


class Watch:
    """One folder. `look` goes through it once; `run` does so until it is stopped."""

    def __init__(self, name: str, folder: Folder, settings: Settings, spool: Spool) -> None:
        self.name = name
        self._summed = Summed(Records.of(settings), "folder", "file")
        self._folder = folder
        self._spool = spool
        self._root = Path(folder.path).expanduser()
        self._done = Path(folder.done).expanduser() if folder.done else self._root / "done"
        self._failed = Path(folder.failed).expanduser() if folder.failed else self._root / "failed"
        self._state = settings.data_dir / "folders"
        self._memory = Memory(self._state / f"{name}.json", name)
        self._seen: dict[str, _Seen] = {}
        self._stop = threading.Event()
        self._taken = 0
        #: What hinders the folder as a whole, and files one by one; empty if nothing does.
        self._trouble = "starting"
        self._troubles: dict[str, str] = {}
        self._spool_says = ""
        self._saved_at = 0.0
        self._told_waiting = 0
        self._intake = Intake(
            spool, adapter="folder", sender=folder.sender, max_object_bytes=settings.dicom.max_object_bytes, full=self._wait_for_space
        )

    def run(self, stop: threading.Event, look_s: float) -> None:
        """Look at the folder until `stop`; only one process of this machine does so at a time."""
        self._stop = stop
        private_folder(self._state)
        with (self._state / f"{self.name}.lock").open("w") as lock:
            while not _locked(lock.fileno()):
                self._trouble = "another process watches it"
                if stop.wait(_RETRY_S):
                    return
            try:
                while not stop.is_set():
                    began = time.monotonic()
                    self.look(began)
                    self._summed.write()
                    stop.wait(max(look_s, time.monotonic() - began))  # a slow share is not kept busy all the time
            finally:
                self._summed.write(everything=True)

    def health(self) -> Health:
        """What is in the folder, and what it waits for; no name of a file."""
        waiting = len(self._seen)
        if trouble := self._trouble or self._spool_says:
            return Health(ready=False, says=f"{self.name}: {trouble}", lag=waiting)
        there = self._memory.count()
        failed, left, troubles = there["failed"], there["left"], list(self._troubles.values())
        says = [f"{counted(self._taken, 'object')} taken since the start"]
        says += [f"{counted(waiting, 'file')} waiting"] if waiting else []
        says += [f"{counted(failed, 'file')} not taken: {self._state / (self.name + '.json')} says why"] if failed else []
        says += [f"{counted(left, 'file')} without an object left alone"] if left else []
        says += [f"{counted(len(troubles), 'file')} in trouble: {troubles[0]}"] if troubles else []
        return Health(ready=True, says=f"{self.name}: {', '.join(says)}", lag=waiting)

    # Looking

    def look(self, now: float) -> None:
        """Go through the folder once and deal with each file that has been the same for `stable_s`; `now` in seconds of a steady clock."""
        if not self._root.is_dir():
            self._trouble = "it is not there. Make it, or mount the share."
            return
        self._trouble = ""
        found: set[str] = set()
        unread: list[OSError] = []
        try:
            for path in walk(self._root, unread.append, leave=self._is_left):
                file = str(path.relative_to(self._root))
                found.add(file)
                self._consider(file, path, now)
                if self._stop.is_set():
                    return
        except _Stopping:
            return
        finally:
            self._save(at_once=True)
        self._trouble = f"a folder in it cannot be read: {unread[0].strerror}." if unread else ""
        if found and not unread:  # else a share that is not mounted would look like an empty folder
            self._memory.keep_only(found)
        self._seen = {file: seen for file, seen in self._seen.items() if file in found}
        self._troubles = {file: trouble for file, trouble in self._troubles.items() if file in found}
        telemetry.FOLDER_WAITING.inc(len(self._seen) - self._told_waiting)  # all folders together
        self._told_waiting = len(self._seen)

    def _is_left(self, path: Path) -> bool:
        unfinished = path.name.startswith((".", "~")) or path.suffix.lower() in _UNFINISHED
        return unfinished or path in (self._done, self._failed)

    def _consider(self, file: str, path: Path, now: float) -> None:
        try:
            identity = Identity.of(path.lstat())
        except OSError:
            return  # it is gone again
        dealt = self._memory.of(file, identity)
        moves = self._folder.after != "keep"
        if dealt is not None and not (dealt.outcome == "failed" and moves and file not in self._troubles):  # else: since it was kept
            self._seen.pop(file, None)
            if dealt.outcome == "taken" and moves:
                self._put_away(file, path, identity)  # which failed before
            return
        seen = self._seen.get(file)
        if seen is None or seen.identity != identity:
            seen = self._seen[file] = _Seen(identity, now, now + self._folder.stable_s)
        if now >= seen.due:
            self._deal(file, path, seen, now)
            self._save()

    def _save(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if at_once or now - self._saved_at > _SAVE_S:
            self._saved_at = now
            try:
                self._memory.save()
            except OSError as error:
                log.warning("folder_memory_not_saved", setting=self.name, says=f"{error.strerror}.")

    # Dealing with a file

    def _deal(self, file: str, path: Path, seen: _Seen, now: float) -> None:
        record = self._intake.record = self._summed.begin(self._folder.sender, f"folder {self.name}")
        result = None
        try:
            result = self._attempt(file, path, seen, now)
        finally:
            self._count(record, result)

    def _attempt(self, file: str, path: Path, seen: _Seen, now: float) -> _Result | None:
        """Deal with a file; what there is to be said of it, None if it is tried again without anything having been taken."""
        try:
            result = self._taken_from(File(path, seen.identity))
        except Unreadable as error:
            result = _Result(problems=[("", error)])
        except _Stopping:
            raise
        except Exception as error:  # a fault of ours on one file must not stop the others
            log.error("folder_file_unforeseen", setting=self.name, error=telemetry.described(error))
            self._try_again(file, seen, now, "a fault of Hilum's, which is in the log")
            return None
        self._taken += result.objects
        telemetry.FOLDER_OBJECTS.inc(result.objects)
        whys = {problem.why for _, problem in result.problems}
        if Why.CHANGED in whys or (Why.READ_ERROR in whys and not result.objects):
            self._try_again(file, seen, now, next(error.sentence for _, error in result.problems if error.why in _PASSING))
            return result if result.objects else None
        if whys & _MAYBE_UNFINISHED and not result.objects and now < seen.since + _PATIENCE * self._folder.stable_s:
            seen.due = seen.since + _PATIENCE * self._folder.stable_s
            return None
        del self._seen[file]
        self._troubles.pop(file, None)
        if result.problems:
            self._fail(file, path, seen.identity, result)
        elif not result.objects or (result.others and self._folder.after == "delete"):
            self._dealt(file, seen.identity, "left")
        else:
            self._dealt(file, seen.identity, "taken")
            if self._folder.after != "keep":
                self._put_away(file, path, seen.identity)
        return result

    def _count(self, record: str, result: _Result | None) -> None:
        """Put a file down in its record, unless it holds nothing that is Hilum's or is tried again."""
        if result is None or not (result.objects or result.problems):
            self._summed.end(record)
            return
        statuses = Counter({"taken": result.objects}) + Counter(str(error.why) for _, error in result.problems)
        self._summed.end(record, statuses=statuses, objects=result.objects, size_bytes=result.size_bytes)

    def _taken_from(self, source: File) -> _Result:
        """Take what is in a file or an archive. Raises `Unreadable` if it cannot be opened."""
        result = _Result()
        if not begins_as_archive(source):
            self._take(source, "", result)
            return result
        with Archive(source) as archive:
            for member in archive.members():
                self._take(member, member.name.removeprefix(source.name + "/"), result)
        return result

    def _take(self, source: File | Member, name: str, result: _Result) -> None:
        if self._stop.is_set():
            raise _Stopping
        try:
            taken = self._intake.take(source)
            self._spool_says = ""
            result.objects += 1
            result.size_bytes += taken.object.size_bytes
        except Skipped as skipped:
            if skipped.why is Why.NESTED_ARCHIVE:
                result.problems.append((name, Unreadable(skipped.why, skipped.sentence)))
            result.others += skipped.why is not Why.DICOMDIR
        except Unreadable as error:
            result.problems.append((name, error))

    def _try_again(self, file: str, seen: _Seen, now: float, why: str) -> None:
        seen.since, seen.due = now, now + max(self._folder.stable_s, _RETRY_S)
        self._troubles[file] = why

    def _wait_for_space(self, full: SpoolFull) -> None:
        if not self._spool_says:
            log.warning("folder_waits", setting=self.name, says=full.sentence)
        self._spool_says = f"{full} Files wait."
        if self._stop.wait(_RETRY_S):
            raise _Stopping

    def _dealt(self, file: str, identity: Identity, outcome: Literal["taken", "failed", "left"], why: str = "") -> None:
        self._memory.note(file, identity, outcome, why)
        telemetry.FOLDER_FILES.labels(outcome=outcome).inc()

    # What becomes of it

    def _put_away(self, file: str, path: Path, identity: Identity) -> None:
        """Move or delete a file that was taken. Until that succeeds it is remembered, and not taken again."""
        try:
            gone = delete(path, identity) if self._folder.after == "delete" else move(path, _free(self._done / file), identity)
        except OSError as error:
            self._stuck(file, f"it was taken, and cannot be {self._folder.after}d: {error.strerror}.")
            return
        self._troubles.pop(file, None)
        self._memory.forget(file)
        if not gone:
            log.info("folder_file_replaced", setting=self.name)

    def _fail(self, file: str, path: Path, identity: Identity, result: _Result) -> None:
        reason = result.problems[0][1].why
        log.warning("folder_file_failed", setting=self.name, reason=reason, count=len(result.problems))
        self._dealt(file, identity, "failed", result.problems[0][1].sentence)
        if self._folder.after == "keep":
            return
        try:
            target = _free(self._failed / file)
            explanation = target.with_name(f"{target.name}.txt")
            write_text(explanation, _explained(result))
            if not move(path, target, identity):
                explanation.unlink()
            self._memory.forget(file)
        except OSError as error:
            self._stuck(file, f"it cannot be taken, nor moved to where failed files go: {error.strerror}.")

    def _stuck(self, file: str, why: str) -> None:
        if file not in self._troubles:
            log.warning("folder_file_stuck", setting=self.name, says=why)
        self._troubles[file] = why


def _explained(result: _Result) -> str:
    """The text beside a file that failed."""
    lines = [f"Hilum could not take this file ({datetime.now(UTC):%Y-%m-%d %H:%M} UTC)."]
    if result.objects:
        lines.append(f"Taken from it: {counted(result.objects, 'object')}. These were not:")
    lines += [f"{name}: {error}" if name else str(error) for name, error in result.problems]
    lines += ["", "Put it into the watched folder again once that is put right."]
    return "\n".join(lines) + "\n"


def write_text(path: Path, text: str) -> None:
    """Write a file for people, whole or not at all. Raises `OSError`."""
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _free(target: Path) -> Path:
    """`target`, its folder made, or a name like it that is not taken: nothing is ever overwritten."""
    target.parent.mkdir(parents=True, exist_ok=True)
    return unused(target) if os.path.lexists(target) else target


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def watches(settings: Settings, spool: Spool | None) -> list[Watch]:
    """A watch of each folder in the settings; none without `spool`, which only checks. Raises `Misconfigured`."""
    roots: dict[Path, str] = {}
    for name, folder in settings.folders.items():
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,31}", name):
            raise _wrong(name, "its name is not of lower case letters, digits, - and _", "Give it such a name.")
        for setting in ("path", "done", "failed"):
            value = getattr(folder, setting)
            if (value or setting == "path") and not PurePath(os.path.expanduser(value)).is_absolute():  # noqa: PTH111  # of a pure path
                raise _wrong(name, f"{setting} is not an absolute path", "Write it from / on.")
        root = Path(folder.path).expanduser()
        if root in (Path(folder.done).expanduser(), Path(folder.failed).expanduser()):
            raise _wrong(name, "done or failed is the folder itself", "Name another, or none.")
        for other, owner in roots.items():
            if root == other or root in other.parents or other in root.parents:
                raise _wrong(name, f"it lies in, or around, the folder of folders.{owner}", "Watch the outer one only.")
        roots[root] = name
    return [Watch(name, folder, settings, spool) for name, folder in settings.folders.items()] if spool is not None else []


def _wrong(name: str, what: str, fix: str) -> Misconfigured:
    return Misconfigured("folder-invalid", f"folders.{name} cannot be watched: {what}.", fix=fix)
