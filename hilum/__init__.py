"""The core of Hilum: events, errors, settings, the runtime. It imports no stage package (ingest, processors, sinks)."""

import warnings

__version__ = "0.1.0"

# pydicom warns of values that are not of their VR, and its texts quote them: they would stand on a terminal, and in the logs of whoever
# collects standard error. Here, and not where a command begins: each process has it so, those that a pool starts included, and each thread
# also while another one ends a `catch_warnings`. What pydicom gives to Python's `logging` goes to nobody (`hilum.telemetry`).
warnings.filterwarnings("ignore", category=UserWarning)
