"""DICOM as both ends use it: headers as DICOM JSON, UIDs, and what is written and read of Part 10 files."""

from hilum.dicom.header import CutValue, Header, tag_of, uid_has_leading_zero, uid_is_usable

__all__ = ["CutValue", "Header", "tag_of", "uid_has_leading_zero", "uid_is_usable"]
