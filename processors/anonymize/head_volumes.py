"""Whether a face could be made of the series that an object is of."""

from __future__ import annotations

import re2

from processors.anonymize.about import (
    BODY_PART,
    FLOAT_PIXELS,
    IMAGE_TYPE,
    IMAGES_IN_ACQUISITION,
    SLICE_THICKNESS,
    SPACING_BETWEEN,
    About,
)

#: What the UIDs of storage SOP classes begin with (PS3.6 A).
STORAGE = "1.2.840.10008.5.1.4.1.1."
#: CT, MR, PET, and X-Ray 3D Angiographic.
_CLASSES = frozenset(STORAGE + suffix for suffix in ("2", "2.1", "2.2", "4", "4.1", "4.3", "4.4", "128", "130", "128.1", "13.1.1"))
#: X-Ray 3D Craniofacial: of faces by name.
_CRANIOFACIAL = STORAGE + "13.1.2"
#: Parts of the body without a face (of PS3.16 Annex L). All that is not put together of these may have one: a part in another language, one
#: that nobody has heard of, the whole body, or none at all.
_FACELESS = re2.compile(
    r"(?:(?:ABD|ABDOMEN|ABDOMINAL|ADRENAL|ANKLE|AORTA|AORTIC|APPENDIX|ARM|AXILLA|BACK|BILEDUCT|BILIARY|BLADDER|BREAST|BRONCHUS|BUTTOCK|"
    r"CALCANEUS|CALF|CARDIAC|CHEST|CLAVICLE|COCCYX|COLON|COR|CORONARY|CORONARYARTERY|DUODENUM|ELBOW|ENTIREABDOMEN|ENTIRELEG|EXTREMITY|FEMUR|"
    r"FIBULA|FINGER|FOOT|FOREARM|GALLBLADDER|GROIN|HAND|HEART|HEEL|HIP|HUMERUS|ILEUM|ILIAC|ILIUM|JEJUNUM|JOINT|KIDNEY|KNEE|LEG|LIVER|LOWER|"
    r"LSPINE|LSSPINE|LUMBAR|LUMBARSPINE|LUNG|LUNGS|MEDIASTINUM|OVARY|PANCREAS|PATELLA|PELVIS|PENIS|PERINEUM|PROSTATE|RADIUS|RECTUM|RENAL|"
    r"RIB|RIBS|SACRUM|SCAPULA|SCROTUM|SHOULDER|SIJOINT|SMALLBOWEL|SPLEEN|SSPINE|STERNUM|STOMACH|TESTIS|THIGH|THORACICAORTA|THORACICSPINE|"
    r"THORAX|THUMB|THYMUS|TIBIA|TIBIAFIBULA|TLSPINE|TOE|TSPINE|ULNA|URETER|URETHRA|UTERUS|VAGINA|WRIST|"
    r"AND|LEFT|RIGHT|TO|UP|UPPER)[ _,./&+0-9-]*)+"
)
#: In ImageType: what is drawn of a volume shows a face by itself, however thick its slices were.
_RENDERED = re2.compile(r"(?:.*[ _])?(?:VRT|SSD|RENDER[A-Z]*)(?:[ _].*)?")
_THIN_MM = 3.0
_FEWEST_SLICES = 20


def is_head_volume(seen: About) -> bool:
    """Whether it is of thin slices, and many, of what may have a face. What is not said is taken for the worst."""
    if seen.source.sop_class_uid == _CRANIOFACIAL:
        return True
    if seen.source.sop_class_uid not in _CLASSES or not seen.places.keys().isdisjoint(FLOAT_PIXELS):
        return False
    if _FACELESS.fullmatch(seen.text(BODY_PART)):
        return False
    if any(_RENDERED.fullmatch(each) for each in seen.values(IMAGE_TYPE)):
        return True
    apart = [each for each in (seen.decimal(SPACING_BETWEEN), seen.decimal(SLICE_THICKNESS)) if each is not None]
    slices = seen.decimal(IMAGES_IN_ACQUISITION)
    thin = not apart or min(abs(each) for each in apart) <= _THIN_MM
    many = slices is None or max(slices, seen.frames) >= _FEWEST_SLICES
    return thin and many
