"""Watched folders: what is put there is taken into the spool. The role `folder`.

`watch` looks at one folder, `memory` keeps what was found of files that stay in it. What a file is, and how it is taken, is in
`hilum/media`, which `hilum import` uses too.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from hilum import telemetry
from hilum.errors import Stopped
from hilum.role import Health, Role
from hilum.settings import Settings
from hilum.spool import Spool

from .watch import Watch, watches

log = telemetry.logger("folder")

#: How long the role waits for a folder's file server when it is to end.
_PATIENCE_S = 5.0


class Folders:
    """The role `folder`: one thread a folder, so that a share that hangs holds up no other."""

    name = "folder"

    def __init__(self, settings: Settings, *, look_s: float = 1.0) -> None:
        self._settings = settings
        self._look_s = look_s
        self._watches: Sequence[Watch] = ()
        self._says = "starting"
        self._failed: list[str] = []

    def run(self, stop: threading.Event) -> None:
        """Watch until `stop`. Raises `Misconfigured` if a folder's settings are wrong or the spool cannot be had."""
        spool = Spool.of(self._settings)
        self._watches = watches(self._settings, spool)
        self._says = "" if self._watches else "There is no folder to be watched: add [folders.NAME] to the settings."
        threads = [
            threading.Thread(target=self._watch, args=(watch, stop), name=f"folder {watch.name}", daemon=True) for watch in self._watches
        ]
        for thread in threads:
            thread.start()
        while not self._failed and not stop.wait(0.2):
            pass
        for thread in threads:
            thread.join(_PATIENCE_S if stop.is_set() else 0)
        if self._failed:
            raise Stopped(f"The watch of folder {self._failed[0]} failed.")

    def _watch(self, watch: Watch, stop: threading.Event) -> None:
        try:
            watch.run(stop, self._look_s)
        except Exception as error:  # whatever it is, the process is to be started anew
            log.error("folder_watch_failed", setting=watch.name, error=telemetry.described(error))
            self._failed.append(watch.name)

    def health(self) -> Health:
        """What each folder holds, and what it waits for."""
        if not self._watches:
            return Health(ready=self._says != "starting", says=self._says)
        all_of_them = [watch.health() for watch in self._watches]
        return Health(
            ready=all(each.ready for each in all_of_them),
            says="; ".join(each.says for each in all_of_them),
            lag=sum(each.lag or 0 for each in all_of_them),
        )


def check(settings: Settings) -> None:
    """Raise `Misconfigured` if the settings of a folder are wrong."""
    watches(settings, None)


def role(settings: Settings) -> Role:
    """The role `folder`."""
    return Folders(settings)
