"""The options of the Basic Application Level Confidentiality Profile (PS3.15 E.2, E.3) and how an object says which were used."""

from __future__ import annotations

from enum import Enum


class Option(Enum):
    """One option: its name in a policy, its code in CID 7050 (PS3.16), what that code means, and its column of Table E.1-1."""

    RETAIN_SAFE_PRIVATE = ("retain-safe-private", "113111", "Retain Safe Private Option", "private")
    RETAIN_UIDS = ("retain-uids", "113110", "Retain UIDs Option", "uids")
    RETAIN_DEVICE_IDENTITY = ("retain-device-identity", "113109", "Retain Device Identity Option", "device")
    RETAIN_INSTITUTION_IDENTITY = ("retain-institution-identity", "113112", "Retain Institution Identity Option", "institution")
    RETAIN_PATIENT_CHARACTERISTICS = ("retain-patient-characteristics", "113108", "Retain Patient Characteristics Option", "patient")
    RETAIN_FULL_DATES = (
        "retain-full-dates",
        "113106",
        "Retain Longitudinal Temporal Information Full Dates Option",
        "full_dates",
    )
    RETAIN_MODIFIED_DATES = (
        "retain-modified-dates",
        "113107",
        "Retain Longitudinal Temporal Information Modified Dates Option",
        "modified_dates",
    )
    CLEAN_DESCRIPTORS = ("clean-descriptors", "113105", "Clean Descriptors Option", "descriptors")
    CLEAN_STRUCTURED_CONTENT = ("clean-structured-content", "113104", "Clean Structured Content Option", "structured")
    CLEAN_GRAPHICS = ("clean-graphics", "113103", "Clean Graphics Option", "graphics")
    #: These two have no column: they are about pixels.
    CLEAN_PIXEL_DATA = ("clean-pixel-data", "113101", "Clean Pixel Data Option", "")
    CLEAN_RECOGNIZABLE_VISUAL_FEATURES = (
        "clean-recognizable-visual-features",
        "113102",
        "Clean Recognizable Visual Features Option",
        "",
    )

    def __init__(self, name: str, code: str, meaning: str, column: str) -> None:
        self.keyword = name
        self.code = code
        self.meaning = meaning
        self.column = column


#: The profile itself.
BASIC_CODE = ("113100", "Basic Application Confidentiality Profile")
#: By their names in a policy.
OPTIONS = {option.keyword: option for option in Option}
#: Columns of the table that belong to an option.
COLUMNS = tuple(option.column for option in Option if option.column)
