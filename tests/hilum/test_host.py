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
    assert subprocess.run([sys.executable, "-c", _SIGNALLED], timeout=60, check=False).returncode == 0


#: Roles that come to the same structs for the first time at the same moment, many times.
_AT_ONCE = """
import sys, threading, types
import msgspec
from hilum import host
from hilum.role import Health
from hilum.settings import Probe, Settings

MANY = 60
sys.setswitchinterval(1e-6)
structs = sys.modules["structs"] = types.ModuleType("structs")
exec("from __future__ import annotations\\nimport msgspec\\n" + "".join(
    f"class Whole{n}(msgspec.Struct):\\n    parts: list[Part{n}] = []\\n    names: dict[str, tuple[int, ...]] = {{}}\\n"
    f"class Part{n}(msgspec.Struct):\\n    x: int\\n" for n in range(MANY)), vars(structs))
together = threading.Barrier(4)

class Reading:
    def __init__(self, name):
        self.name = name
    def run(self, stop):
        for n in range(MANY):
            together.wait()
            msgspec.convert({"parts": [{"x": 1}], "names": {"a": [1]}}, getattr(structs, f"Whole{n}"))
    def health(self):
        return Health(ready=True, says="")

raise SystemExit(host.host([Reading(f"r{n}") for n in range(4)], Settings(probe=Probe(port=0))))
"""


def test_roles_that_read_the_same_structs_at_once_do_not_crash_msgspec() -> None:
    assert subprocess.run([sys.executable, "-c", _AT_ONCE], timeout=60, check=False).returncode == 0
