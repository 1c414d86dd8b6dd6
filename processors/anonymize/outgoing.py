"""An object as a policy lets it out, pixels and all: risky kinds are held, masks painted, heads defaced, and then the engine has it.

Whoever sends objects asks here, and not the engine: that one looks at no pixel.
"""

from __future__ import annotations

from mmap import mmap
from pathlib import Path

from msgspec import Struct

from hilum.errors import HilumError, Misconfigured, TryAgain
from processors.anonymize.about import BURNED_IN, About, about
from processors.anonymize.engine import anonymize
from processors.anonymize.extent import check_extent
from processors.anonymize.faces import Defacer, defaced
from processors.anonymize.held import Held, HeldReason
from processors.anonymize.options import Option
from processors.anonymize.pixels import painted
from processors.anonymize.pixels.fitting import Fitting, fitting
from processors.anonymize.policy import Policy, Text
from processors.anonymize.result import Anonymized, Context
from processors.anonymize.risky import Kind, held_as, said_of, wants
from processors.anonymize.source import read_source, unreadable
from processors.anonymize.unused import is_drawn_on

_NOTHING: frozenset[Option] = frozenset()


class Prepared(Struct, frozen=True, kw_only=True):
    """An original with its pixels as they may leave, and what was done to those."""

    #: A Part 10 file for the engine, the original itself if nothing was done.
    part10: bytes | mmap
    cleaned: frozenset[Option] = _NOTHING
    #: What was painted over, for a preview.
    fit: Fitting | None = None
    #: What changed, in words without values of the object; then its DerivationDescription says so, too.
    stated: str = ""


def outgoing(
    original: bytes | mmap,
    context: Context,
    *,
    trace: bool = False,
    folder: Path | None = None,
    defacer: Defacer | None = None,
    seen: About | None = None,
) -> Anonymized:
    """The object as the policy lets it out, or nothing: raises `Held`; `TryAgain` if there is no room for it; and
    `Misconfigured` if the policy looks for text and the extra `ocr` is not installed.

    `original` is a whole Part 10 file, and must live as long as the result. Large objects whose pixels change are kept in `folder`
    meanwhile, in files without a name. `seen` is `looked_at` of the original, if that was asked before.
    """
    ready = prepared(original, context.policy, folder=folder, defacer=defacer, seen=seen)
    done = anonymize(ready.part10, context, trace=trace, cleaned=ready.cleaned, derived=bool(ready.stated))
    done.stated = ready.stated
    return done


def looked_at(original: bytes | mmap) -> About:
    """What an original says of itself. Raises `Held` if it cannot be read."""
    try:
        return about(read_source(original))
    except Held:
        raise
    except Exception:  # whatever bytes may cause; its text might hold some of them
        raise unreadable("It cannot be read as DICOM (PS3.5 7).") from None


def prepared(
    original: bytes | mmap, policy: Policy, *, folder: Path | None = None, defacer: Defacer | None = None, seen: About | None = None
) -> Prepared:
    """See `outgoing`; what comes before the engine."""
    try:
        seen = seen or looked_at(original)
        wanted = wants(seen, policy.kinds)
        drawn = _is_drawn_on(seen, policy, check_extent(seen))
        ready = Prepared(part10=original)
        if "deface" in wanted:
            ready = Prepared(
                part10=defaced(original, seen, defacer, folder),
                cleaned=frozenset({Option.CLEAN_RECOGNIZABLE_VISUAL_FEATURES}),
                stated="Defaced.",
            )
            seen = about(read_source(ready.part10))
        return _masked(seen, policy, ready, folder, needed="mask" in wanted, drawn=drawn)
    except HilumError as stop:
        if isinstance(stop, Held | TryAgain | Misconfigured):
            raise
        raise unreadable("It cannot be looked at.") from None
    except Exception:  # whatever bytes may cause; its text might hold some of them
        raise unreadable("It cannot be read as DICOM (PS3.5 7).") from None


def _is_drawn_on(seen: About, policy: Policy, codestream_bits: int) -> bool:
    """Whether bits are to be cleared that are no part of samples. Raises `Held` if there are any, and the policy does not say so."""
    said = said_of(Kind.UNUSED_BITS, policy.kinds)
    found = is_drawn_on(seen, codestream_bits, look=said != "pass")
    if found and said != "clean":
        raise held_as(Kind.UNUSED_BITS)
    return found


def _masked(seen: About, policy: Policy, ready: Prepared, folder: Path | None, *, needed: bool, drawn: bool) -> Prepared:
    if not seen.has_pixels:
        return ready
    fit = fitting(seen, policy.masks) if policy.masks else None
    if fit is None and (needed or Option.CLEAN_PIXEL_DATA.keyword in policy.options):
        raise Held(
            HeldReason.NO_MASK,
            "The policy wants its pixels cleaned, and none of its masks is of images like this one.",
            fix="Write a mask for such images, with clean = true if somebody has looked and nothing needs to be painted over.",
        )
    burned_in = seen.text(BURNED_IN) not in ("", "NO") and said_of(Kind.BURNED_IN, policy.kinds) == "mask"
    if fit is not None and not fit.paints and burned_in:
        raise Held(
            HeldReason.MASK,
            "It says that text is burned into it, and the mask for it says that nothing needs to be painted over.",
            fix="Write the boxes that hold the text.",
        )
    by_mask = fit is not None and fit.paints
    if policy.text is not None:
        fit = _with_text(seen, policy.text, fit)
    if not (drawn or (fit is not None and fit.paints)):
        return ready
    done = painted(seen, fit or Fitting(), folder, clear=drawn)
    stated = " ".join(filter(None, (ready.stated, done.stated)))
    # Nobody has looked at what a model painted over: only a mask makes an object say that it was cleaned.
    cleaned = ready.cleaned | {Option.CLEAN_PIXEL_DATA} if by_mask else ready.cleaned
    return Prepared(part10=done.part10, cleaned=cleaned, fit=fit, stated=stated)


def _with_text(seen: About, wanted: Text, fit: Fitting | None) -> Fitting | None:
    """The mask with the boxes in which text was found. Raises `Held` if the policy holds such images."""
    from processors.anonymize.text.looking import text_in  # with the extra `ocr`, and only where a policy looks

    found = text_in(seen, wanted, fit)
    if not found:
        return fit
    if wanted.found == "hold":
        raise Held(
            HeldReason.TEXT,
            "Text was found in its pixels, where no mask is.",
            fix="Look at the image; write a mask for such images, or leave them out of what goes to this destination.",
        )
    return Fitting(boxes=(*(fit.boxes if fit else ()), *found), regions=fit.regions if fit else None)
