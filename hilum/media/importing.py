"""Import trees of files: everything in them that is an object goes into the spool once, and everything else is accounted for."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol

from msgspec import Struct, field

from hilum.errors import NotFound, TryAgain
from hilum.media.dicomdir import references, same_place
from hilum.media.errors import Skipped, Unreadable, Why
from hilum.media.intake import Found, Intake, Taken
from hilum.media.journal import Journal
from hilum.media.sources import Archive, File, Member, delete, is_archive, shown, walk
from hilum.spool import Incoming, Spool, SpoolFull
from hilum.structs import prepare_structs

#: Files that are taken at the same time; they share syncs of the spool's directory.
WORKERS = 4
#: How often a full spool is tried again.
RETRY_S = 1.0


class Problem(Struct, frozen=True, kw_only=True):
    """A file that was not taken and should perhaps have been."""

    file: str
    why: Why
    sentence: str
    fix: str = ""


class Listed(Struct, frozen=True, kw_only=True):
    """An object that a dry run found."""

    file: str
    study_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    size_bytes: int


class Summary(Struct, kw_only=True):
    """What became of every file."""

    #: Objects that are in the spool now; in a dry run, that would be.
    taken: int = 0
    taken_bytes: int = 0
    #: Files whose very data set came before in this import.
    duplicates: int = 0
    #: Objects that an earlier run of this import, which was broken off, has taken.
    taken_before: int = 0
    #: Objects that the index has already, byte for byte.
    indexed: int = 0
    #: Files without an object, by what they are.
    skipped: Counter[str] = field(default_factory=Counter)
    unreadable: list[Problem] = field(default_factory=list)
    #: Files that a DICOMDIR names and that are not there.
    missing: list[str] = field(default_factory=list)
    #: Files that were deleted since their objects are safe.
    deleted: int = 0
    #: What people should know besides.
    notes: list[str] = field(default_factory=list)
    #: Whether it was broken off.
    interrupted: bool = False
    #: In a dry run: what would be taken.
    objects: list[Listed] = field(default_factory=list)

    @property
    def objects_safe(self) -> int:
        """Objects that Hilum has now, whenever they came."""
        return self.taken + self.duplicates + self.taken_before + self.indexed

    @property
    def complete(self) -> bool:
        """Whether there is nothing left to look at."""
        return not (self.unreadable or self.missing or self.interrupted)


class Index(Protocol):
    """Knows which objects came before."""

    def has(self, found: Found) -> bool:
        """Whether the index has this object with this digest. Raises `TryAgain` if it cannot be asked."""
        ...


class Interrupted(Exception):
    """The import was asked to stop."""


class Import:
    """One import. `progress` is told of each file that is done with, `says` what is waited for; both are called from several threads.
    `record` is the id of its record, which its objects name.

    Raises `NotFound` if one of `paths` does not exist.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        spool: Spool,
        *,
        sender: str = "",
        max_object_bytes: int = 16 * 2**30,
        journal: Journal | None = None,
        index: Index | None = None,
        dry_run: bool = False,
        delete_imported: bool = False,
        record: str = "",
        progress: Callable[[], None] = lambda: None,
        says: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.summary = Summary()
        self._roots = roots_of(paths)
        self._journal = journal
        self._index = index
        self._dry_run = dry_run
        self._delete = delete_imported and not dry_run
        self._progress = progress
        self._says = says
        self._intake = Intake(
            spool, adapter="media", sender=sender, max_object_bytes=max_object_bytes, full=self._wait, once=self._once, record=record
        )
        self._stop = threading.Event()
        self._lock = threading.Lock()
        #: One object at a time for each first byte of a digest: a file is a duplicate only once its twin is synced.
        self._turns = [threading.Lock() for _ in range(256)]
        self._synced: set[bytes] = set()
        #: Every file by its place, and why it held no object; and what the directories of media name, by place.
        self._places: dict[str, Why | None] = {}
        self._named: dict[str, str] = {}
        self._under_way: set[Future[None]] = set()
        self._waits = False

    def count(self) -> int:
        """How many files there are, members of archives apart: for a progress bar."""
        return sum(1 for _ in self._files(lambda _: None))

    def run(self) -> Summary:
        """Import everything. Ctrl-C ends it after what is under way; the summary says so."""
        prepare_structs()
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="import") as pool:
            try:
                for path in self._files(self._folder_trouble):
                    self._start(pool, File(path))
                self._gather()
                self._compare_with_directories()
            except (KeyboardInterrupt, Interrupted):
                self.summary.interrupted = True
            finally:
                self._stop.set()
        return self.summary

    # Finding

    def _files(self, trouble: Callable[[OSError], None]) -> Iterator[Path]:
        for root in self._roots:
            yield from [root] if root.is_file() else walk(root, trouble)

    def _folder_trouble(self, error: OSError) -> None:
        sentence = f"The folder cannot be read: {error.strerror}."
        self._problem(shown(str(error.filename)), Unreadable(Why.READ_ERROR, sentence, fix="Check its rights, and the medium."))

    def _start(self, pool: ThreadPoolExecutor, file: File) -> None:
        if not begins_as_archive(file):
            self._submit(pool, file)
            return
        self._gather()
        before = self._not_taken()
        try:
            with Archive(file) as archive:
                try:
                    for member in archive.members():
                        self._submit(pool, member)
                    self._gather()
                except BaseException:
                    self._stop.set()
                    wait(self._under_way)  # nobody may read in an archive that is closed
                    raise
        except Unreadable as error:
            self._problem(file.name, error)
        else:
            if self._delete and self._not_taken() == before:
                self._remove(file)
        self._progress()

    def _not_taken(self) -> int:
        """Files that hold something which this run has not put into the spool."""
        summary = self.summary
        others = summary.skipped.total() - summary.skipped[Why.DICOMDIR]
        return len(summary.unreadable) + others + summary.taken_before + summary.indexed

    def _submit(self, pool: ThreadPoolExecutor, source: File | Member) -> None:
        while len(self._under_way) >= 2 * WORKERS:
            self._gather(FIRST_COMPLETED)
        self._under_way.add(pool.submit(self._one, source))

    def _gather(self, when: str = FIRST_EXCEPTION) -> None:
        """Wait for what is under way, or for one of it. An error that nobody foresaw, or being told to stop, ends the import."""
        done, self._under_way = wait(self._under_way, return_when=when)
        for each in done:
            each.result()

    # Taking

    def _one(self, source: File | Member) -> None:
        if self._stop.is_set():
            raise Interrupted
        no_object: Why | None = None
        try:
            taken = self._intake.take(source)
            self._note(source, taken)
            # What came before this run stays: whether it is still there is not known here.
            if self._delete and isinstance(source, File) and taken.outcome in ("taken", "duplicate"):
                self._remove(source)
        except Skipped as skipped:
            no_object = skipped.why
            with self._lock:
                self.summary.skipped[skipped.why] += 1
            if skipped.why is Why.DICOMDIR:
                self._read_directory(source)
        except Unreadable as error:
            self._problem(source.name, error)
        with self._lock:
            self._places[same_place(source.place)] = no_object
        if isinstance(source, File):
            self._progress()

    def _once(self, found: Found, incoming: Incoming) -> Taken:
        with self._turns[found.sha256[0]]:
            if found.sha256 in self._synced:
                return Taken(object=found, outcome="duplicate")
            outcome = self._before(found)
            if outcome != "taken":
                return Taken(object=found, outcome=outcome)
            receipt = "" if self._dry_run else incoming.commit()
            self._synced.add(found.sha256)
            if receipt:
                self._remember(found)
            return Taken(object=found, outcome=outcome, receipt=receipt)

    def _before(self, found: Found) -> Literal["taken", "taken_before", "indexed"]:
        if self._journal is not None and found.sha256 in self._journal.earlier:
            return "taken_before"
        try:
            if self._index is not None and self._index.has(found):
                return "indexed"
        except TryAgain:
            self._index = None
            self._say("The index cannot be asked any more: what it has already may be taken again, and is then a duplicate.")
        return "taken"

    def _remember(self, found: Found) -> None:
        try:
            if self._journal is not None:
                self._journal.add(found.sha256)
        except OSError as error:
            self._journal = None
            self._say(f"What is taken cannot be noted ({error.strerror}): a run after this one may take it again.")

    def _wait(self, full: SpoolFull) -> None:
        with self._lock:
            said, self._waits = self._waits, True
        if not said:
            self._says(f"{full} The import waits, and goes on by itself.")
        if self._stop.wait(RETRY_S):
            raise Interrupted

    def _remove(self, file: File) -> None:
        assert file.identity is not None
        try:
            if delete(file.path, file.identity):
                with self._lock:
                    self.summary.deleted += 1
                return
            reason = "another file has taken its place"
        except OSError as error:
            reason = error.strerror or "it cannot be removed"
        self._say(f"{file.name} was taken and is not deleted: {reason}.")

    # Accounting

    def _note(self, source: File | Member, taken: Taken) -> None:
        found, summary = taken.object, self.summary
        with self._lock:
            self._waits = False
            setattr(summary, _COUNTS[taken.outcome], getattr(summary, _COUNTS[taken.outcome]) + 1)
            if taken.outcome == "taken":
                summary.taken_bytes += found.size_bytes
            if taken.outcome == "taken" and self._dry_run:
                summary.objects.append(
                    Listed(
                        file=source.name,
                        study_instance_uid=found.study_instance_uid,
                        sop_instance_uid=found.sop_instance_uid,
                        sop_class_uid=found.sop_class_uid,
                        transfer_syntax_uid=found.transfer_syntax_uid,
                        size_bytes=found.size_bytes,
                    )
                )

    def _problem(self, name: str, error: Unreadable) -> None:
        with self._lock:
            self.summary.unreadable.append(Problem(file=name, why=error.why, sentence=error.sentence, fix=error.fix))

    def _say(self, sentence: str) -> None:
        with self._lock:
            self.summary.notes.append(sentence)

    # What the medium says is on it

    def _read_directory(self, source: File | Member) -> None:
        place = PurePosixPath(source.place)
        if same_place(place.name) != "DICOMDIR":  # a directory has no other name (PS3.10 8.6): this is somebody's copy
            return
        try:
            named = {same_place(place.parent / file_id): shown(f"{place.parent}/{file_id}") for file_id in references(source)}
        except Unreadable as error:
            self._say(f"{source.name}: {error.sentence}")
            return
        with self._lock:
            self._named |= named

    def _compare_with_directories(self) -> None:
        for place, name in self._named.items():
            if place not in self._places:
                self.summary.missing.append(name)
            elif self._places[place] is Why.NO_DICOM:
                self.summary.skipped[Why.NO_DICOM] -= 1
                self._problem(
                    name, Unreadable(Why.NO_DICOM, "The DICOMDIR names it, and it is no DICOM file.", fix="Have the medium made again.")
                )
        self.summary.skipped = +self.summary.skipped


_COUNTS = {"taken": "taken", "duplicate": "duplicates", "taken_before": "taken_before", "indexed": "indexed"}


def roots_of(paths: Iterable[Path]) -> list[Path]:
    """The files and folders that `paths` name, each once; a DICOMDIR stands for its folder. Raises `NotFound`."""
    found: list[Path] = []
    for path in paths:
        root = path.expanduser().resolve()
        if not root.exists():
            raise NotFound(f"{shown(str(path))} does not exist.", fix="Name a file or a folder; mount the medium first.")
        found.append(root.parent if same_place(root.name) == "DICOMDIR" and root.is_file() else root)
    return [root for root in dict.fromkeys(found) if not any(other in root.parents for other in found)]


def begins_as_archive(file: File) -> bool:
    """Whether it is a ZIP archive; False too if it cannot be read, which whoever takes it will find."""
    try:
        with file.open() as content:
            return is_archive(content.read(132), file.name)
    except (Skipped, Unreadable):
        return False
