"""The records of `hilum.records`, for the receivers and the publisher."""

from hilum.records import SUFFIX, Records

__all__ = ["SUFFIX", "Records"]
