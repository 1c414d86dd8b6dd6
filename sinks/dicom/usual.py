"""The SOP classes that nearly every archive takes, to ask a peer whether it takes anything at all."""

from __future__ import annotations

from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedSRStorage,
    KeyObjectSelectionDocumentStorage,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    XRayAngiographicImageStorage,
)

#: What `check` asks the peer about, beside C-ECHO: each class uncompressed and in each of `COMPRESSIONS`.
USUAL_SOP_CLASSES = (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    CTImageStorage,
    EnhancedCTImageStorage,
    MRImageStorage,
    EnhancedMRImageStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    SecondaryCaptureImageStorage,
    XRayAngiographicImageStorage,
    PositronEmissionTomographyImageStorage,
    EnhancedSRStorage,
    KeyObjectSelectionDocumentStorage,
)
