"""The contract with data teams: JSON Schemas, examples and an AsyncAPI document, generated from `hilum/events.py` into `schemas/`.

`python -m hilum.contract write` refuses to replace a schema by one that would break who reads or writes it: see `compatibility`.
"""

from hilum.contract.compatibility import incompatibilities
from hilum.contract.files import FOLDER, Incompatible, contract_files, differences, write

__all__ = ["FOLDER", "Incompatible", "contract_files", "differences", "incompatibilities", "write"]
