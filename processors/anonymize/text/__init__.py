"""Text in pixels, found by a model that comes with the package of the extra `ocr` (PP-OCRv6 by RapidOCR; nothing is fetched).

A second sign, never a first: what is found is painted over or holds the object, and what is not found proves nothing. No object leaves
because no text was found in it, and none says that it was cleaned because what was found is painted over.
"""

from __future__ import annotations

import importlib
import threading
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from hilum.errors import Misconfigured
from processors.anonymize.pixels.layout import Box

#: Around what is found, so much is painted over too: the model cuts ascenders and descenders short.
_MARGIN = 3
#: Of the blur that is taken off, in pixels, and up to which percentile detail is not white or black.
_STROKE, _RANGE = 4, 99.5
#: For the part of the model that looks for boxes: low, since another part reads what is in them.
_LOOKS_LIKE_TEXT = 0.3
#: Letters and digits; one alone is a marker of a side, or the edge of something.
_FEWEST = 2
_ANEW = 'Install it anew: pip install --force-reinstall "hilum[ocr]"'
_lock = threading.Lock()


def check() -> None:
    """Raise `Misconfigured` if the extra is not installed or does not load: a policy that looks for text cannot be used then."""
    _model()


def boxes(image: Any, threshold: float) -> tuple[Box, ...]:
    """Where text is in an image of 8 bits, grey (rows, columns) or RGB (rows, columns, 3), sorted.

    What looks like text is read as well, and is text only if that goes: two letters or digits at least, read with a confidence, from 0
    to 1, of `threshold`. Without that, organs are text. What was read goes nowhere.
    """
    return tuple(sorted({box for box, confidence in found(image) if confidence >= threshold}))


def found(image: Any) -> list[tuple[Box, float]]:
    """What could be read in an image as for `boxes`, and with what confidence: it is looked at as it is, and at its detail alone."""
    return [*_read(image), *_read(detail_of(image))]


def detail_of(image: Any) -> Any:
    """An image without what is larger than strokes of letters: on tissue that changes from bright to dark, the model misses most text."""
    behind = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(_STROKE)), np.float32)
    detail = image - behind
    most = float(np.percentile(np.abs(detail), _RANGE)) or 1.0
    return np.clip(128 + detail * (127 / most), 0, 255).astype(np.uint8)


def _read(image: Any) -> list[tuple[Box, float]]:
    model = _model()
    shown = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    with _lock:  # it keeps its settings in itself
        read = model(
            np.ascontiguousarray(shown[..., ::-1]), use_det=True, use_cls=False, use_rec=True, box_thresh=_LOOKS_LIKE_TEXT, text_score=0.0
        )
    texts = getattr(read, "txts", None)  # not there if nothing of what looks like text can be read
    if not texts:
        return []
    rows, columns = image.shape[:2]
    boxes = []
    for corners, text, confidence in zip(read.boxes, texts, read.scores, strict=True):
        if sum(map(str.isalnum, text)) < _FEWEST:
            continue
        (left, top), (right, bottom) = np.min(corners, axis=0), np.max(corners, axis=0)
        box = (
            max(0, int(left) - _MARGIN),
            max(0, int(top) - _MARGIN),
            min(columns, int(np.ceil(right)) + 1 + _MARGIN),
            min(rows, int(np.ceil(bottom)) + 1 + _MARGIN),
        )
        boxes.append((box, float(confidence)))
    return boxes


@cache
def _model() -> Any:
    try:
        module = importlib.import_module("rapidocr")
    except ModuleNotFoundError:
        sentence = "A policy looks for text in pixels, and what does so is not installed."
        raise Misconfigured("ocr-missing", sentence, fix='Install it: pip install "hilum[ocr]"') from None
    except Exception as error:  # a library that it needs of the system; whatever it makes of files that are not whole
        sentence = f"A policy looks for text in pixels, and what does so cannot be loaded ({type(error).__name__}: {error})."
        raise Misconfigured("ocr-missing", sentence, fix=_ANEW) from None
    try:
        model = module.RapidOCR(params={"Global.log_level": "critical"})
        nothing = np.zeros((48, 48, 3), np.uint8)
        for looks in (True, False):  # each part of it is loaded when it is first used
            model(nothing, use_det=looks, use_cls=False, use_rec=not looks)
    except Exception as error:
        raise Misconfigured("ocr-missing", f"What looks for text in pixels does not start ({type(error).__name__}).", fix=_ANEW) from None
    return model
