"""Ways out: one destination type a module; the settings' `type = "archive"` names the module `sinks/archive.py`."""
