"""What a preview says of an object as a whole: its risky kinds and what the policy says of them, and what its masks do."""

from __future__ import annotations

from mmap import mmap

from msgspec import Struct

from processors.anonymize.held import Held
from processors.anonymize.outgoing import looked_at
from processors.anonymize.pixels.fitting import fitting
from processors.anonymize.policy import Policy
from processors.anonymize.risky import Kind, kinds_of, said_of


class KindSaid(Struct, frozen=True, kw_only=True):
    """A risky kind that an object is of."""

    kind: str
    meaning: str
    #: What becomes of it, as a policy has it: `pass: why`.
    said: str
    #: The same in words.
    becomes: str
    #: Whether the policy itself says so; else it is what holds for all that say nothing.
    by_policy: bool


class Risks(Struct, frozen=True, kw_only=True):
    """What there is to be looked at besides elements."""

    kinds: list[KindSaid] = []
    #: What masks do, in a sentence; empty if there are no pixels, or nothing of the object can be read.
    masks: str = ""


_BECOMES = {
    "hold": "held",
    "mask": "leaves if a mask is for such images, painted over; else held",
    "clean": "leaves as the table and the options have its attributes",
    "pass": "leaves as it is",
    "deface": "leaves once the face is taken out",
}


def risks_of(original: bytes | mmap, policy: Policy) -> Risks:
    """By the header; bits that are set beside samples, which the header does not tell of, hold the object by themselves."""
    try:
        seen = looked_at(original)
        kinds = [_said(kind, policy) for kind in kinds_of(seen)]
        if not seen.has_pixels:
            return Risks(kinds=kinds)
    except Held:
        return Risks()
    try:
        fit = fitting(seen, policy.masks)
    except Held as held:
        return Risks(kinds=kinds, masks=held.sentence)
    if fit is None:
        masks = "No mask of the policy is for images like this one: nothing is painted over."
    elif not fit.paints:
        masks = "A mask of the policy is for images like this one, and says that nothing needs to be painted over."
    else:
        boxes = f"{len(fit.boxes)} boxes" if fit.boxes else ""
        outside = "all that is outside of the ultrasound regions" if fit.regions is not None else ""
        masks = f"Painted over in every frame: {' and '.join(filter(None, (boxes, outside)))}."
    return Risks(kinds=kinds, masks=masks)


def _said(kind: Kind, policy: Policy) -> KindSaid:
    said = policy.kinds.get(kind, kind.unsaid)
    why = said.partition(":")[2].strip()
    becomes = _BECOMES[said_of(kind, policy.kinds)] + (f": {why}" if why else "")
    return KindSaid(kind=kind, meaning=kind.meaning, said=said, becomes=becomes, by_policy=kind in policy.kinds)
