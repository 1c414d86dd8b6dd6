"""Where objects may be: files of a folder and members of ZIP archives, each opened for one reading. Nothing is ever unpacked to disk."""

from __future__ import annotations

import os
import secrets
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from io import FileIO
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Protocol

from msgspec import Struct

from hilum.media.errors import Skipped, Unreadable, Why

#: An archive's own directory is read into memory at once: some 200,000 members.
MAX_DIRECTORY_BYTES = 16 * 2**20
MAX_MEMBERS = 200_000
#: What an archive may grow to: above the first, no more than this many times its own size (deflate reaches 1032).
MAX_UNPACKED_BYTES = 4 * 2**30
MAX_RATIO = 100
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
_NO_ARCHIVES = frozenset(
    {".jar", ".war", ".apk", ".docx", ".xlsx", ".pptx", ".odt", ".ods", ".odp", ".epub", ".xpi", ".nupkg", ".whl", ".appx", ".msix"}
)
_ARCHIVE_STARTS = (b"PK\x03\x04", b"PK\x05\x06")


class Content(Protocol):
    """What is read of a source."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes, none at the end. Raises `Unreadable`."""
        ...


class Source(Protocol):
    """One file or archive member."""

    @property
    def name(self) -> str:
        """As people are shown it; it may hold a patient's name, so it is never logged."""
        ...

    def open(self) -> AbstractContextManager[Content]:
        """It can be read once, and is known to be whole and unchanged when the block has ended. Raises `Unreadable` and `Skipped`."""
        ...


class Identity(Struct, frozen=True):
    """What tells whether a file is still the one that was seen. Not its inode, which some network shares change at will."""

    size_bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, seen: os.stat_result) -> Identity:
        """Of what the file system says."""
        return cls(seen.st_size, seen.st_mtime_ns)


class File:
    """A file of the file system. Links are not followed; what changes while it is read is refused, as is another than `expected`."""

    def __init__(self, path: Path, expected: Identity | None = None) -> None:
        self.path = path
        self._expected = expected
        self.name = shown(str(path))
        #: Where it is, for comparison with what a DICOMDIR names.
        self.place = str(path)
        self.size_bytes = 0
        #: What was read, once `open` has begun.
        self.identity: Identity | None = None

    @contextmanager
    def open(self) -> Iterator[Content]:
        """See `Source.open`."""
        with _read_errors():
            file = self._opened()
        with file:
            before = os.fstat(file.fileno())
            if not stat.S_ISREG(before.st_mode):
                raise Skipped(Why.LINK)
            self.size_bytes, self.identity = before.st_size, Identity.of(before)
            if self._expected is not None and self.identity != self._expected:
                raise _changed()
            yield _FileContent(file)
            if Identity.of(os.fstat(file.fileno())) != self.identity:
                raise _changed()

    def _opened(self) -> FileIO:
        # A link is not followed, and a pipe must not hold us up; regular files do not mind O_NONBLOCK.
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            if not stat.S_ISREG(self.path.lstat().st_mode):
                raise Skipped(Why.LINK) from None
            raise
        return FileIO(descriptor, "rb")


def _changed() -> Unreadable:
    return Unreadable(Why.CHANGED, fix="Import it again when nothing writes to it any more.")


class _FileContent:
    def __init__(self, file: FileIO) -> None:
        self.file = file

    def read(self, size: int, /) -> bytes:
        with _read_errors():
            return self.file.read(size) or b""


class Member:
    """A member of an open archive."""

    def __init__(self, archive: Archive, info: zipfile.ZipInfo) -> None:
        self.name = f"{archive.file.name}/{shown(info.filename)}"
        self.place = f"{archive.file.path}/{info.filename}"
        self._archive = archive
        self._info = info

    @contextmanager
    def open(self) -> Iterator[Content]:
        """See `Source.open`."""
        if self._info.flag_bits & 1:
            raise Unreadable(Why.ARCHIVE, "It is encrypted in its archive.", fix="Unpack the archive with its password, then import that.")
        if self._info.compress_type not in _METHODS:
            raise Unreadable(
                Why.ARCHIVE, "It is compressed by a method that is not taken here.", fix="Unpack the archive, then import that."
            )
        with ExitStack() as stack:
            with _archive_errors():
                member = stack.enter_context(self._archive.zip.open(self._info))
            yield _MemberContent(member)


class _MemberContent:
    def __init__(self, member: IO[bytes]) -> None:
        self._member = member

    def read(self, size: int, /) -> bytes:
        with _archive_errors():
            return self._member.read(size)


class Archive:
    """A ZIP archive, opened with `with`. Raises `Unreadable` if it is damaged or larger inside than it may be."""

    def __init__(self, file: File) -> None:
        self.file = file
        self._stack = ExitStack()

    def __enter__(self) -> Archive:
        with ExitStack() as stack:
            content = stack.enter_context(self.file.open())
            assert isinstance(content, _FileContent)
            with _archive_errors():
                self.zip = stack.enter_context(zipfile.ZipFile(_NoHugeReads(content.file.fileno(), "rb", closefd=False)))
            self._check_sizes()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, trace)

    def members(self) -> Iterator[Member]:
        """Its files, in the order of its directory."""
        return (Member(self, info) for info in self.zip.infolist() if not info.is_dir())

    def _check_sizes(self) -> None:
        infos = self.zip.infolist()
        unpacked = sum(info.file_size for info in infos)
        if len(infos) > MAX_MEMBERS:
            raise Unreadable(Why.ARCHIVE, f"The archive has more than {MAX_MEMBERS} members.", fix="Unpack it, then import that.")
        if unpacked > max(MAX_UNPACKED_BYTES, MAX_RATIO * self.file.size_bytes):
            raise Unreadable(
                Why.ARCHIVE,
                f"The archive would grow to {unpacked} bytes, more than {MAX_RATIO} times its size.",
                fix="If that is meant, unpack it, then import that.",
            )


class _NoHugeReads(FileIO):
    """An archive whose own directory is of reasonable size: `zipfile` reads all of that at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = MAX_DIRECTORY_BYTES + 1 if size is None or size < 0 else size  # the rest: it is asked for near the end only
        found = super().read(wanted) if wanted <= MAX_DIRECTORY_BYTES + 1 else None
        if found is None or len(found) > MAX_DIRECTORY_BYTES:
            raise zipfile.BadZipFile("its directory is too large")
        return found


@contextmanager
def _read_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        sentence = f"The file cannot be read: {error.strerror or type(error).__name__}."
        raise Unreadable(Why.READ_ERROR, sentence, fix="Check its rights, and the medium.") from error


@contextmanager
def _archive_errors() -> Iterator[None]:
    """What `zipfile` raises, in words. Its own texts name members, which may be called after patients."""
    try:
        with _read_errors():
            yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error) as error:
        raise Unreadable(Why.ARCHIVE, "The archive is damaged here.", fix="Have it made or sent again.") from error


def is_archive(head: bytes, name: str) -> bool:
    """Whether a file of this name that begins so is a ZIP archive to look into.

    Not a DICOM file whose preamble looks like one (PS3.10 7.1), and not what programs and documents are packed in.
    """
    return head[:4] in _ARCHIVE_STARTS and head[128:132] != b"DICM" and PurePosixPath(name).suffix.lower() not in _NO_ARCHIVES


def walk(folder: Path, trouble: Callable[[OSError], None], *, leave: Callable[[Path], bool] = lambda _: False) -> Iterator[Path]:
    """The files below `folder`, in order of their names; folders that are links, and what `leave` holds for, are left out."""
    for root, folders, files in os.walk(folder, onerror=trouble):
        folders[:] = sorted(name for name in folders if not leave(Path(root, name)))
        yield from (path for name in sorted(files) if not leave(path := Path(root, name)))


def move(path: Path, target: Path, identity: Identity) -> bool:
    """Rename the file that was read; False if another has taken its place meanwhile, which then stays. Raises `OSError`."""
    path.rename(target)
    if Identity.of(target.lstat()) == identity:
        return True
    target.rename(path if not os.path.lexists(path) else unused(path))
    return False


def unused(path: Path) -> Path:
    """A name like that of `path` that nothing has."""
    return path.with_name(f"{path.stem}.{secrets.token_hex(4)}{path.suffix}")


def delete(path: Path, identity: Identity) -> bool:
    """Remove the file that was read; False if another has taken its place meanwhile, which then stays. Raises `OSError`."""
    aside = path.with_name(f".{secrets.token_hex(8)}.hilum")
    if not move(path, aside, identity):
        return False
    aside.unlink()
    return True


def shown(name: str) -> str:
    """A file's name as it can be printed anywhere: what is not printable, or not text, becomes `?`."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(each if each.isprintable() else "?" for each in text)
