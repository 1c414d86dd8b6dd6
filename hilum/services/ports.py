"""Ports that stay: chosen once, kept in the data directory, so that clients find a server again after it was started anew."""

from __future__ import annotations

import json
import random
import socket
import threading
from pathlib import Path

from hilum.errors import Misconfigured
from hilum.services.files import write_atomically

# Below the range from which systems take the near end of outgoing connections, so that none of these can occupy it meanwhile.
AUTOMATIC = range(20_000, 32_000)


class Ports:
    """The ports of one data directory. Safe for use by several threads."""

    def __init__(self, data: Path) -> None:
        self._file = data / "ports.json"
        self._lock = threading.Lock()
        try:
            self._kept: dict[str, int] = json.loads(self._file.read_text())
        except (OSError, ValueError):
            self._kept = {}

    def take(self, setting: str, host: str, port: int = 0) -> int:
        """The port for `setting` (such as "kafka.port"): `port` itself, or for 0 the one used before if it is free, else a new one.

        Raises `Misconfigured` if a port that was asked for is taken.
        """
        with self._lock:
            if port:
                if not is_free(host, port):
                    raise Misconfigured(
                        "port-in-use",
                        f"Another program listens on {host}:{port}, the port set as {setting}.",
                        fix=f"End that program, or set {setting} to another port (0 lets Hilum choose one).",
                    )
                return port
            kept = self._kept.get(setting)
            if kept and is_free(host, kept):
                return kept
            taken = set(self._kept.values())
            chosen = next(p for p in random.sample(AUTOMATIC, len(AUTOMATIC)) if p not in taken and is_free(host, p))
            self._kept[setting] = chosen
            write_atomically(self._file, json.dumps(self._kept, indent=2))
            return chosen


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: old connections in TIME_WAIT do not count
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True
