"""SQLite files beside the spool: what the processes of one machine share without a server, also while all servers are away."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hilum.disk import sync_folder
from hilum.services.files import private_folder

#: How long a writer waits for another one.
BUSY_S = 5.0


class Local:
    """One file with its tables; any number of threads and processes use it, each through connections of its own.

    It is made when it is first used: what shares a process with it must start, and get on, also while the disk is full.
    """

    def __init__(self, path: Path, schema: str, *, durable: bool) -> None:
        """If `durable`, what is committed survives a power cut; else the file does, perhaps without its end."""
        self.path = path
        self._durable = durable
        self._schema = schema
        self._made = False
        self._making = threading.Lock()

    def make(self) -> None:
        """Make it, if it is not there. Raises `OSError`."""
        with self._making:
            if self._made:
                return
            private_folder(self.path.parent)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # it holds patients: for its owner alone
            connection = self._connect()
            try:
                connection.execute("BEGIN IMMEDIATE")
                for statement in filter(str.strip, self._schema.split(";")):
                    connection.execute(statement)
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise _failed(error) from None
            finally:
                connection.close()
            sync_folder(self.path.parent)
            self._made = True

    def connect(self) -> sqlite3.Connection:
        """A connection for one thread. Raises `OSError`."""
        self.make()
        return self._connect()

    def _connect(self) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None)
            # A rollback journal whose removal is synced, too, is SQLite's safest; a log lets readers go on while somebody writes.
            connection.execute(f"PRAGMA journal_mode = {'DELETE' if self._durable else 'WAL'}")
            connection.execute(f"PRAGMA synchronous = {'EXTRA' if self._durable else 'NORMAL'}")
        except sqlite3.Error as error:
            raise _failed(error) from None
        return connection

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection for a look. Raises `OSError`."""
        connection = self.connect()
        try:
            yield connection
        except sqlite3.Error as error:
            raise _failed(error) from None
        finally:
            connection.close()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that nobody else writes in: committed at the end, undone if an exception leaves it. Raises `OSError`."""
        with self.reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")


def _failed(error: sqlite3.Error) -> OSError:
    """SQLite's words name no value."""
    full = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL
    return OSError(errno.ENOSPC if full else errno.EIO, str(error))
