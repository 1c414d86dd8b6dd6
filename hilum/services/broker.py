"""Become a Kafka broker that no longer leads what it led in its former life. Run as a script, by file name, never imported.

    python -I -S broker.py METADATA CONTROLLER_CONFIG BROKER_CONFIG JAVA ARGUMENT...

A broker that is its own controller finds itself leader in its old metadata when it starts, and its transaction coordinator goes on
before the broker is registered again. From 4.1 on (KAFKA-20734) it then takes partitions without a leader for deleted ones, and
files a transaction as complete without its markers: what was committed is never seen, nor anything behind it. So, if METADATA
exists, the controller runs alone first, until it has declared the former broker dead; every partition then waits for a new leader.
"""

import os
import re
import selectors
import subprocess
import sys
import time
from pathlib import Path

ACTIVE = b"Performing controller activation"
#: Said, and then written and synced: events are processed, and told of, in the order of the metadata log.
FENCED = re.compile(rb"Fencing broker.*Processed maybeFenceStaleBroker", re.DOTALL)

#: The session of a broker is over after `broker.session.timeout.ms` of CONTROLLER_CONFIG; if nothing was said in many times that,
#: the broker was declared dead before.
SILENCE_S = 3.0
LONGEST_S = 30.0


def fence(argv: list[str]) -> None:
    """Run the controller until the broker's session is over. Its warnings go to standard output. Exits if it ends by itself."""
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0)
    assert process.stdout is not None
    deadline, text, active = time.monotonic() + LONGEST_S, b"", False
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            if not selector.select(left):
                break
            got = process.stdout.read(1 << 16)
            if not got:
                sys.stdout.write(text.decode(errors="replace"))
                sys.exit(process.wait() or 1)
            text += got
            if not active and ACTIVE in text:
                active, deadline = True, time.monotonic() + SILENCE_S
            if FENCED.search(text):
                break
    process.kill()
    process.wait()
    sys.stdout.writelines(f"{line}\n" for line in text.decode(errors="replace").splitlines() if " WARN " in line or " ERROR " in line)
    sys.stdout.flush()


def main() -> None:
    """Do as the module's docstring says; does not return."""
    metadata, controller, broker, *argv = sys.argv[1:]
    if Path(metadata).exists():
        java, *arguments = argv
        fence([java, "-Dhilum.controller.log=DEBUG", *arguments, "kafka.Kafka", controller])
    os.execv(argv[0], [*argv, "kafka.Kafka", broker])  # noqa: S606 - becoming the broker is this program's purpose


if __name__ == "__main__":
    main()
