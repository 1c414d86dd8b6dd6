"""Imported last by the process that Hilum's programs are forks of: what it has imported by then stays in memory once.

Looking for cycles writes a counter into the head of every object that the garbage collector knows, so that each program would soon
have a copy of its own of all of them. Those that are frozen here are looked at no more (`gc.freeze`).
"""

from __future__ import annotations

import gc

from hilum.structs import prepare_structs

prepare_structs()
gc.collect()
gc.freeze()
