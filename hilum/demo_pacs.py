"""The demo's PACS: pynetdicom's `storescp`, on the loopback address, for as long as the demo's Hilum is there.

    python -m hilum.demo_pacs PORT FOLDER DATA

It ends once the Hilum on the data directory DATA has run and stopped, or on SIGTERM.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

from hilum.services.runstate import read_run_state


def main() -> None:
    """Run the storage SCP and watch over it."""
    port, folder, data = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pynetdicom", "storescp", port, "-aet", "PACS", "-od", str(folder), "-ba", "127.0.0.1"]
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seen = False
    while not stop.wait(0.5) and server.poll() is None:
        state = read_run_state(data)
        alive = state is not None and state.is_alive()
        if seen and not alive:
            break
        seen = seen or alive
    server.terminate()
    server.wait()


if __name__ == "__main__":
    main()
