import subprocess
import sys

#: What takes longest to load, and what only some commands need.
_HEAVY = ("minio", "pydicom", "numpy", "confluent_kafka")
_LOADED = f"import sys, hilum.cli; print(*(each for each in {_HEAVY} if each in sys.modules))"


def test_a_command_begins_without_what_only_others_need() -> None:
    done = subprocess.run([sys.executable, "-c", _LOADED], capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout == "\n"
