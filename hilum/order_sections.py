"""The table `[orders]` of the settings file. `hilum.settings` reads it."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from hilum.kinds import TimeZone
from hilum.sections import Section

Hours = Annotated[float, Meta(gt=0, le=87_600)]
Days = Annotated[float, Meta(gt=0, le=3_650)]


class Orders(Section, frozen=True, kw_only=True):
    """Orders, patients, and how studies fit them: the roles `orders` and `match`."""

    #: Of times in messages without an offset, and in images without one (0008,0201), such as `Europe/Vienna`; empty: UTC.
    time_zone: TimeZone = ""
    #: Whose patient identifiers and accession numbers are in images that do not say; empty: of any issuer that has just one such.
    issuer_of_patient_id: str = ""
    issuer_of_accession_number: str = ""
    #: Hours after its images began to come within which a study's order may come; afterwards it counts as one without order.
    order_within_hours: Hours = 24.0
    #: Hours after the planned start of an order (its arrival, if it has none) within which images may come.
    images_within_hours: Hours = 72.0
    #: Orders of the same patient that are planned so many hours before or after a study without order are shown as candidates.
    candidate_hours: Hours = 24.0
    #: Days for which an accession number is one order's: later, an image with it belongs to no order that is older, and an order with
    #: it is another one. Some sites use numbers again.
    accession_days: Days = 180.0
    #: Days for which an order is remembered after its last change. It stays in the database.
    keep_days: Days = 400.0
    #: Days after its last change for which a study, and an order that is done, is held ready for late corrections.
    match_days: Days = 30.0
    #: File with the site's secret, by which names of patients and orders on Kafka are made; empty: `site-secret` in the data directory,
    #: made when first needed. Where several machines share the work, each needs the same.
    secret: str = ""
