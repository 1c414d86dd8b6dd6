"""The role `worklist`: gives the receivers the steps that modalities are to see, and tells Kafka what these say of performed ones.

The receiver answers (`ingest/dicom/worklist.py`, `ingest/dicom/performed.py`); `query` and `matching` say what it finds, `items` what
an order looks like to a modality, `keeper` is the role itself.
"""

from __future__ import annotations

from hilum.role import Role
from hilum.settings import Settings


def role(settings: Settings) -> Role:
    """The role `worklist`."""
    from .keeper import keeper  # the receiver uses this package, too, and needs neither Kafka nor PostgreSQL

    return keeper(settings)
