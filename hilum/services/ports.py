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


_one_at_a_time = threading.Lock()  # servers of one data directory are prepared by several threads


class Ports:
    """The ports of one data directory, in `<data>/ports.json`. Only the holder of the data directory's lock may take any."""

    def __init__(self, data: Path) -> None:
        self._file = data / "ports.json"

    def take(self, setting: str, host: str, port: int = 0) -> int:
        """The port for `setting` (such as "kafka.port"): `port` itself, or for 0 the one used before if it is free, else a new one.

        Raises `Misconfigured` if a port that was asked for is taken.
        """
        if port:
            if not is_free(host, port):
                raise Misconfigured(
                    "port-in-use",
                    f"Another program listens on {host}:{port}, the port set as {setting}.",
                    fix=f"End that program, or set {setting} to another port (0 lets Hilum choose one).",
                )
            return port
        with _one_at_a_time:
            kept = self._read()
            if (before := kept.get(setting)) and is_free(host, before):
                return before
            taken = set(kept.values())
            candidates = random.sample(AUTOMATIC, len(AUTOMATIC))
            kept[setting] = next(p for p in candidates if p not in taken and is_free(host, p))
            write_atomically(self._file, json.dumps(kept, indent=2))
            return kept[setting]

    def _read(self) -> dict[str, int]:
        try:
            return {str(setting): int(port) for setting, port in json.loads(self._file.read_text()).items()}
        except (OSError, ValueError, AttributeError):  # absent or spoilt: all are chosen anew
            return {}

    def kept(self, setting: str) -> int:
        """The port that was chosen for `setting` before; 0 if none was."""
        return self._read().get(setting, 0)


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
