"""The core of Hilum: events, errors, settings, the runtime. It imports no stage package (ingest, processors, sinks)."""

__version__ = "0.1.0"
