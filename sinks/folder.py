"""Write each instance as one Part 10 file into a folder, for tools that watch a share: whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from hilum import testobject
from hilum.disk import sync_folder
from hilum.errors import Misconfigured
from hilum.layout import BY_UIDS, Layout, Template
from hilum.part10 import Part10
from hilum.settings import Settings
from hilum.sink import Delivery, Outage, Session, Settled, Sink, Step, step

_PIECE_BYTES = 2**20
#: What is not complete yet: hidden, and directly in the folder, so that one look finds what a crash has left.
_PREFIX, _SUFFIX = ".hilum-", ".part"
_LEFT_OVER_S = 86_400


class Folder(Sink, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A folder."""

    takes_policy: ClassVar[bool] = True

    #: It must exist, so that a lost mount is noticed.
    path: Annotated[str, Meta(min_length=1, description="a folder's path")]
    #: Where in it each object goes: DICOM keywords, `sha256`, `destination` and `received_date` in braces.
    layout: Template = BY_UIDS
    #: What becomes of another object that has the same path: `replace` it, or `keep` it and reject the new one.
    existing: Literal["replace", "keep"] = "replace"

    def __post_init__(self) -> None:
        Layout(self.layout)

    def open(self, settings: Settings) -> Session:
        """See `Sink.open`."""
        del settings
        return Files(Path(self.path), Layout(self.layout), keep=self.existing == "keep")

    def check(self, settings: Settings, *, with_object: bool = False) -> Iterator[Step]:
        """See `Sink.check`: it is a folder, and takes files that are renamed and removed again."""
        del settings
        path = Path(self.path)
        with step("folder") as looking:
            if not path.is_dir():
                fix = "Make it or mount the share, then try again."
                raise Misconfigured("folder-missing", f"{path} is no folder.", fix=fix)
            looking.says = f"{path} is there"
        yield looking.done
        if not looking.done.ok:
            return
        with step("writing") as writing:
            disk = _try(path)
            writing.says = f"takes files; {disk.f_bavail * disk.f_frsize / 1e9:.1f} GB are free"
        yield writing.done
        if writing.done.ok and with_object:
            with step("test object") as storing:
                file = path / "hilum-test-object.dcm"
                with _explained(path):
                    _write(path, file, iter([testobject.part10().getvalue()]))
                storing.says = f"{file} is there now and may be deleted"
            yield storing.done


class Files(Session):
    """Writes files. Safe beside others of its kind on the same folder."""

    def __init__(self, path: Path, layout: Layout, *, keep: bool) -> None:
        self._path, self._layout, self._keep = path, layout, keep
        self._cleaned = False

    def deliver(self, delivery: Delivery, part10: Part10) -> Settled:
        """Write the file; a second delivery finds the first."""
        name = self._layout.path(delivery, part10)
        file = self._path / name
        with _explained(self._path):
            if not self._path.is_dir():
                raise Outage(f"{self._path} is no folder.", fix="Mount the share, or make the folder.")
            self._clean()
            try:
                there = _is_same(file, part10)
                if there:
                    return Settled(state="already_there", comment="in the folder")
                if there is False and self._keep:
                    return Settled(state="rejected", comment="Another object has its path, and `existing` is `keep`.")
                _write(self._path, file, part10.pieces(_PIECE_BYTES))
            except OSError as error:
                if error.errno in (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EINVAL):
                    return Settled(state="rejected", comment=f"The folder does not take its path ({error.strerror}).")
                raise
        return Settled(state="delivered", comment="in the folder")

    def _clean(self) -> None:
        """Remove what a crash has left, once."""
        if self._cleaned:
            return
        self._cleaned = True
        for left in self._path.glob(f"{_PREFIX}*{_SUFFIX}"):
            with suppress(OSError):
                if time.time() - left.stat().st_mtime > _LEFT_OVER_S:
                    left.unlink()


def _is_same(file: Path, part10: Part10) -> bool | None:
    """Whether the file holds this object; None if there is none. Raises `OSError`."""
    try:
        with file.open("rb") as there:
            if os.fstat(there.fileno()).st_size != part10.size_bytes:
                return False
            return all(there.read(len(piece)) == piece for piece in part10.pieces(_PIECE_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except IsADirectoryError:
        return False


def _write(folder: Path, file: Path, pieces: Iterator[bytes | memoryview]) -> None:
    """Write `file`, which is inside `folder`, whole and durably, or not at all. Raises `OSError`, and what `pieces` raises."""
    part = folder / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640), "wb") as out:
            for piece in pieces:
                out.write(piece)
            out.flush()
            os.fsync(out.fileno())
        is_new = not file.parent.is_dir()
        file.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        part.replace(file)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
    sync_folder(file.parent, or_share=True)
    if is_new:
        for parent in file.parent.parents:
            sync_folder(parent, or_share=True)
            if parent == folder:
                break


def _try(folder: Path) -> os.statvfs_result:
    """Write a file, and remove it. Raises `Outage`."""
    with _explained(folder):
        probe = folder / f"{_PREFIX}{secrets.token_hex(8)}"
        _write(folder, probe, iter([b"Hilum tries whether it may write here."]))
        probe.unlink()
        return os.statvfs(folder)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn what the file system raises into what a person can act on; its paths may hold values of objects."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            fix = "Make room there, or raise the quota."
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            fix = "Let Hilum's user write there."
        else:
            fix = "Check the disk or the share, then run `hilum dest test`."
        raise Outage(f"{folder} takes no files ({error.strerror or type(error).__name__}).", fix=fix) from None
