"""Objects as highdicom derives them from a study of CT slices: their names, numbers and text are nobody's, and planted."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import JPEGLSLossless, RLELossless

from hilum.synthetic import ct_study
from tests.processors.anonymize.objects import part10

#: Nobody's: in what leaves, none of them is, in any case.
PLANTED = ("Zebulon", "Quixley", "ZQX4711", "Wolperding", "5558612345")
NAME, PATIENT_ID, OTHER = "Zebulon^Quixley", "ZQX4711", "Wolperding^Vera"
NOTE = "Seen by Vera Wolperding, call 5558612345, about Zebulon Quixley"
_SIDE = 32


def _uid(number: int) -> hd.UID:
    return hd.UID(f"2.25.7000{number}")


def _numbers(number: int) -> dict[str, Any]:
    """UIDs and numbers of a derived object."""
    return {
        "series_instance_uid": _uid(100 + number),
        "series_number": 100 + number,
        "sop_instance_uid": _uid(200 + number),
        "instance_number": 1,
        "manufacturer": "Synthetic Medical",
    }


def _made(number: int) -> dict[str, Any]:
    """Likewise, and the device that made it."""
    return {**_numbers(number), "manufacturer_model_name": "Model 9", "software_versions": "1.0", "device_serial_number": "S1"}


def slices() -> list[Dataset]:
    """The images that all others are derived from."""
    found: list[Dataset] = []
    for number, ds in enumerate(ct_study(4, rows=_SIDE, columns=_SIDE)):
        ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.ReferringPhysicianName = NAME, PATIENT_ID, "19470313", OTHER
        ds.SpecificCharacterSet = "ISO_IR 192"
        del ds.ReferencedImageSequence  # a localizer that is not here
        ds.PatientSex, ds.AccessionNumber, ds.StudyID, ds.OperatorsName = "F", "ZQX4711A", "ZQX4711S", OTHER
        ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, 5.0 * number], [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing, ds.SliceThickness = [1.0, 1.0], 5
        found.append(ds)
    return found


def _region() -> Any:
    mask = np.zeros((4, _SIDE, _SIDE), dtype=np.uint8)
    mask[1:3, 8:20, 10:24] = 1
    return mask


def _algorithm() -> Any:
    return hd.AlgorithmIdentificationSequence(name="Threshold", family=codes.DCM.ArtificialIntelligence, version="1.0")


def _segments(count: int) -> list[Any]:
    return [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=f"Segment {number}",
            segmented_property_category=codes.SCT.Tissue,
            segmented_property_type=codes.SCT.Bone,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=_algorithm(),
            tracking_uid=_uid(300 + number),
            tracking_id=f"Lesion {number}",
        )
        for number in range(1, count + 1)
    ]


def segmentation(kind: str = "BINARY", number: int = 1, **more: Any) -> Dataset:
    """A segmentation of the slices in two segments: BINARY, FRACTIONAL, or LABELMAP."""
    pixels = np.stack([_region(), np.roll(_region(), 14 if kind == "LABELMAP" else 8, axis=2)], axis=-1)  # labels do not overlap
    return hd.seg.Segmentation(
        source_images=slices(),
        pixel_array=pixels / 2.0 if kind == "FRACTIONAL" else pixels,
        segmentation_type=kind,
        segment_descriptions=_segments(2),
        content_creator_name=OTHER,
        content_description=NOTE[:64],
        **_made(number),
        **more,
    )


def _person() -> Any:
    return hd.sr.ObserverContext(
        observer_type=codes.DCM.Person,
        observer_identifying_attributes=hd.sr.PersonObserverIdentifyingAttributes(
            name=OTHER, login_name="wolperding", organization_name=NOTE
        ),
    )


def _observers() -> Any:
    device = hd.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(uid=_uid(400), name="Wolperding's machine"),
    )
    return hd.sr.ObservationContext(observer_person_context=_person(), observer_device_context=device)


def _measurements() -> list[Any]:
    images = slices()
    volume = hd.sr.Measurement(name=codes.SCT.Volume, value=17.5, unit=codes.UCUM.CubicMillimeter, algorithm_id=None)
    planar = hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=_uid(301), identifier="Lesion of Zebulon Quixley"),
        referenced_region=hd.sr.ImageRegion3D(
            graphic_type=hd.sr.GraphicTypeValues3D.POLYGON,
            graphic_data=np.array([[8.0, 8.0, 5.0], [20.0, 8.0, 5.0], [20.0, 20.0, 5.0], [8.0, 8.0, 5.0]]),
            frame_of_reference_uid=images[0].FrameOfReferenceUID,
        ),
        finding_type=codes.SCT.Bone,
        measurements=[volume],
        qualitative_evaluations=[hd.sr.QualitativeEvaluation(name=codes.DCM.LevelOfSignificance, value=codes.SCT.No)],
    )
    by_segment = hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=_uid(302), identifier="Lesion 2"),
        referenced_segment=hd.sr.ReferencedSegment.from_segmentation(segmentation(), segment_number=1),
        finding_type=codes.SCT.Bone,
        measurements=[volume],
    )
    return [planar, by_segment]


def report() -> Dataset:
    """A Comprehensive 3D SR by TID 1500, with measurements of a region and of a segment."""
    content = hd.sr.MeasurementReport(
        observation_context=_observers(),
        procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        imaging_measurements=_measurements(),
        title=codes.DCM.ImagingMeasurementReport,
    )
    made = hd.sr.Comprehensive3DSR(
        evidence=[*slices(), segmentation()],
        content=content,
        **_numbers(2),
        is_complete=True,
        is_final=True,
        is_verified=True,
        institution_name="Hospital",
        verifying_observer_name=OTHER,
        verifying_organization=NOTE[:64],
    )
    note = hd.sr.TextContentItem(name=codes.DCM.Comment, value=NOTE, relationship_type=hd.sr.RelationshipTypeValues.CONTAINS)
    made.ContentSequence.append(note)
    return made


def presentation() -> Dataset:
    """A GSPS with a layer of text and lines."""
    images = slices()
    layer = hd.pr.GraphicLayer("LAYER1", order=1, description="Of Vera Wolperding")
    text = hd.pr.TextObject(text_value=NOTE, units=hd.pr.AnnotationUnitsValues.PIXEL, anchor_point=(10.0, 10.0))
    line = hd.pr.GraphicObject(
        graphic_type=hd.pr.GraphicTypeValues.POLYLINE,
        graphic_data=np.array([[1.0, 1.0], [9.0, 9.0], [9.0, 1.0]]),
        units=hd.pr.AnnotationUnitsValues.PIXEL,
        tracking_id="of Wolperding",
        tracking_uid=_uid(303),
    )
    annotation = hd.pr.GraphicAnnotation(referenced_images=images, graphic_layer=layer, text_objects=[text], graphic_objects=[line])
    return hd.pr.GrayscaleSoftcopyPresentationState(
        referenced_images=images,
        content_label="WOLPERDING",
        content_description=NOTE[:64],
        content_creator_name=OTHER,
        graphic_layers=[layer],
        graphic_annotations=[annotation],
        institution_name="Hospital",
        **_made(3),
    )


def capture(**more: Any) -> Dataset:
    """A secondary capture in colour."""
    return hd.sc.SCImage.from_ref_dataset(
        ref_dataset=slices()[0],
        pixel_array=np.random.default_rng(1).integers(0, 255, (_SIDE, _SIDE, 3), dtype=np.uint8),
        photometric_interpretation=hd.PhotometricInterpretationValues.RGB,
        bits_allocated=8,
        coordinate_system=hd.CoordinateSystemNames.PATIENT,
        patient_orientation=("L", "P"),
        **_numbers(4),
        **more,
    )


def parametric_map(kind: Any = np.float32) -> Dataset:
    """A parametric map of floats, or of whole numbers."""
    mapping = hd.pm.RealWorldValueMapping(
        lut_label="ADC",
        lut_explanation=NOTE[:64],
        unit=codes.UCUM.NoUnits,
        value_range=(0.0, 4095.0) if kind is np.float32 else (0, 4095),
        slope=1.0,
        intercept=0.0,
    )
    return hd.pm.ParametricMap(
        source_images=slices(),
        pixel_array=_region().astype(kind),
        window_center=0.5,
        window_width=1.0,
        real_world_value_mappings=[mapping],
        contains_recognizable_visual_features=False,
        content_creator_name=OTHER,
        content_description=NOTE[:64],
        **_made(5),
    )


def key_objects() -> Dataset:
    """A note that names the slices."""
    content = hd.ko.KeyObjectSelection(
        document_title=codes.DCM.ForReportAttachment,
        referenced_objects=slices(),
        observer_person_context=_person(),
        description=NOTE,
    )
    return hd.ko.KeyObjectSelectionDocument(
        evidence=slices(),
        content=content,
        institution_name="Hospital",
        **_numbers(6),
    )


@cache
def objects() -> dict[str, bytes]:
    """Each as a file, by what it is; the slices first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {f"slice {number}": part10(ds) for number, ds in enumerate(slices())}
        found |= {
            "segmentation": part10(segmentation()),
            "fractional segmentation": part10(segmentation("FRACTIONAL", 7)),
            "label map": part10(segmentation("LABELMAP", 9)),
            "report": part10(report()),
            "presentation state": part10(presentation()),
            "secondary capture": part10(capture()),
            "parametric map of floats": part10(parametric_map()),
            "parametric map of numbers": part10(parametric_map(np.uint16)),
            "key objects": part10(key_objects()),
            "compressed segmentation": part10(segmentation("FRACTIONAL", 8, transfer_syntax_uid=RLELossless), RLELossless),
            "compressed capture": part10(capture(transfer_syntax_uid=JPEGLSLossless), JPEGLSLossless),
        }
    return found
