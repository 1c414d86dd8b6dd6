"""`python -m hilum.contract write|check [--against FOLDER]`: see the package."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hilum.contract.files import FOLDER, Incompatible, breaks, differences, write


def main() -> int:
    """Write the files, or say what is wrong with them; 0 if nothing is."""
    parser = argparse.ArgumentParser(prog="python -m hilum.contract", description="Schemas, examples and the AsyncAPI document.")
    parser.add_argument("action", choices=("write", "check"))
    parser.add_argument("--against", type=Path, default=FOLDER, help="the `schemas` folder of a release whose promises are to be kept")
    chosen = parser.parse_args()
    if chosen.action == "write":
        try:
            write(FOLDER)
        except Incompatible as broken:
            print(broken, file=sys.stderr)
            return 1
        return 0
    stale = [f"{FOLDER / name} is not what hilum/events.py says; run ./dev write." for name in differences(FOLDER)]
    wrong = breaks(chosen.against) + stale
    for sentence in wrong:
        print(sentence, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
