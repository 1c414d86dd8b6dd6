from __future__ import annotations

import subprocess
import sys

#: A process whose role has SIGTERM delivered to its own thread, as the kernel may do where the first one is held up.
_SIGNALLED = """
import signal, threading, time
from hilum import host
from hilum.role import Health
from hilum.settings import Probe, Settings

class Signalled:
    name = "signalled"
    def run(self, stop):
        time.sleep(0.2)  # until the main thread waits: nothing tells from outside that it does, and awake it would see the signal
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        stop.wait()
    def health(self):
        return Health(ready=True, says="")

raise SystemExit(host.host([Signalled()], Settings(probe=Probe(port=0))))
"""


def test_a_signal_that_another_thread_gets_ends_the_process_too() -> None:
    assert subprocess.run([sys.executable, "-c", _SIGNALLED], timeout=20, check=False).returncode == 0
