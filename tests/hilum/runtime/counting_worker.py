"""A process that numbers the instances of each study until SIGTERM: `counting_worker.py SLOT`, with its settings in the environment."""

from __future__ import annotations

import signal
import sys
import threading

import msgspec

from hilum import telemetry
from hilum.errors import HilumError
from hilum.events import Finding, InstanceAccepted, InstanceReceived
from hilum.runtime.loop import ProcessorRole
from hilum.runtime.processor import Memory
from hilum.settings import load


class Seen(msgspec.Struct):
    count: int = 0


class Count:
    """Numbers the instances of each study."""

    name = "count"
    State = Seen

    def handle(self, event: InstanceReceived, memory: Memory[Seen]) -> InstanceAccepted:
        row = memory.get(event.key) or Seen()
        row.count += 1
        memory.put(event.key, row)
        return InstanceAccepted.following(event, [Finding(code="count", sentence=str(row.count))])


if __name__ == "__main__":
    (slot,) = sys.argv[1:]
    settings = load().settings
    telemetry.configure(settings)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        ProcessorRole(settings, Count(), slot=slot).run(stop)
    except HilumError as error:
        sys.exit(str(error))
