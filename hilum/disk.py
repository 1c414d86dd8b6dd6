"""What Hilum asks of a disk beyond Python's `os`."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

#: How some shares answer a sync of a folder: they have none.
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP)
_libc = ctypes.CDLL(None, use_errno=True)


def sync_folder(path: Path, *, or_share: bool = False) -> None:
    """Return once the names in the folder `path` are on disk. With `or_share`, a share that cannot say so will do. Raises `OSError`."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if not or_share or error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(fd)


def sync_file_system(path: Path) -> None:
    """Return once everything written so far on the file system that holds `path` is on disk. Raises `OSError`.

    Linux reports write errors since the file system was opened here (syncfs(2)); elsewhere all file systems are synced.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not hasattr(_libc, "syncfs"):
            os.sync()
        elif _libc.syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(fd)
