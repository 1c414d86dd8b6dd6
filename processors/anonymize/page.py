"""A preview as one page of HTML, for a person who decides whether such objects may leave. It loads nothing, and runs no script."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from xml.etree.ElementTree import Element, SubElement, tostring

from processors.anonymize.offline import Preview
from processors.anonymize.pictures import Pictures
from processors.anonymize.pixels.layout import Box
from processors.anonymize.result import Action
from processors.anonymize.table import EDITION
from processors.anonymize.wording import CODES, Became, became, because, is_private, standing, words

#: Every pair of text and ground has a contrast of 7 or more (WCAG 2.2, 1.4.6), and no colour says what no word says.
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; padding: 0 1rem; max-width: 90rem; color: #1a1a1a; background: #fff }
h1 { font-size: 1.5rem }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem }
table.short { width: auto }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #ccc }
thead th { position: sticky; top: 0; background: #eee }
tbody th { font-weight: 600 }
td { unicode-bidi: isolate }
.value, code { overflow-wrap: anywhere; white-space: pre-wrap }
.value { min-width: 8rem }
.number { text-align: right; font-variant-numeric: tabular-nums }
code, pre { font-size: 13px; font-weight: 400 }
details { border: 1px solid #bbb; border-radius: 4px; margin: .6rem 0; padding: 0 .8rem }
summary { padding: .5rem 0; cursor: pointer; font-weight: 600 }
.box { border: 2px solid #1b5e20; border-left-width: .6rem; padding: .3rem .9rem; margin: 1rem 0 }
.box.held { border-color: #8e0000 }
.box.names { border-color: #5d4500 }
.mark { display: inline-block; min-width: 6.5rem; padding: 0 .5rem; border-radius: 3px; border: 1px solid #555 }
.removed { background: #fbdcdc }
.emptied { background: #f6e3f7 }
.replaced { background: #dbe8fb }
.changed { background: #fdf0c4 }
.kept { background: #e2f2e2 }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem }
figure { flex: 1 1 20rem; max-width: 50rem; margin: 0 }
svg { width: 100%; height: auto; background: #000 }
svg * { vector-effect: non-scaling-stroke; stroke-width: 2px; fill: none; image-rendering: pixelated }
.mask { stroke: #e22; fill: #e22; fill-opacity: .25 }
.region { stroke: #2c2; stroke-dasharray: 6 4 }
.text { stroke: #fb0; stroke-dasharray: 2 2 }
@media print { thead th { position: static } }
"""
_NOTHING_FROM_ELSEWHERE = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_LEGEND = (
    "Red, filled: painted over by masks. Green, dashed: ultrasound regions. Yellow, dotted: text that was found, over all frames that were "
    "looked at."
)
_ADDED = (
    "Besides, what leaves says that it is de-identified: PatientIdentityRemoved, DeidentificationMethod and its code sequence, and "
    "LongitudinalTemporalInformationModified are written anew. File Meta and preamble are new, too."
)
_OTHERWISE = (
    "What an option of the profile or the policy says otherwise stands under Why. Type 1: there, with a value, in each object of the "
    "class; type 2: there, perhaps empty; type 3: may be missing; C: on a condition (PS3.5 7.4)."
)
_NOT_REACHED = "No element is shown: it would be held for what it is, before its elements are looked at."
#: What is in a column, by its heading; the class of its cells.
_Columns = Sequence[tuple[str, Callable[[Action], str], str]]
_HOW: _Columns = (("What becomes of it", words, ""), (f"{EDITION} Table E.1-1", standing, ""), ("Why", because, ""))
_BEFORE: _Columns = (("VR", lambda each: each.vr, ""), ("Before", lambda each: each.before, "value"))
_AFTER: _Columns = (("After", lambda each: each.after or "", "value"),)
_COLUMNS: Mapping[Became, _Columns] = {
    Became.REMOVED: (*_BEFORE, *_HOW[1:]),
    Became.EMPTIED: (*_BEFORE, *_HOW[1:]),
    Became.REPLACED: (*_BEFORE, *_AFTER, *_HOW),
    Became.CHANGED: (*_BEFORE, *_AFTER, *_HOW),
    Became.KEPT: (("VR", lambda each: each.vr, ""), ("Value", lambda each: each.before, "value"), *_HOW),
}


def page(preview: Preview, pictures: Pictures | None = None) -> str:
    """The page. It names the patient: whoever keeps it keeps an original. What is in it is text, and never markup."""
    title = f"Preview of policy {preview.policy} {preview.version}"
    html = Element("html", lang="en")
    head = SubElement(html, "head")
    SubElement(head, "meta", charset="utf-8")
    SubElement(head, "meta", {"http-equiv": "Content-Security-Policy", "content": _NOTHING_FROM_ELSEWHERE})
    SubElement(head, "meta", name="viewport", content="width=device-width, initial-scale=1")
    _text(head, "title", title)
    _text(head, "style", _STYLE)
    body = SubElement(SubElement(html, "body"), "main")
    _text(body, "h1", title)
    _text(body, "p", f"Of {preview.path}.")
    _box(body, "names", "This page names the patient.", "It is for who may see the original. Whoever keeps it keeps an original.")
    _verdict(body, preview)
    by_became: dict[Became, list[Action]] = {each: [] for each in Became}
    for action in preview.actions:
        by_became[became(action)].append(action)
    if preview.actions:
        _summary(body, by_became)
    _risks(body, preview)
    if pictures is not None:
        _pictures(body, pictures)
    if preview.mask:
        _text(_folded(body, "How a mask of images like this one begins"), "pre", preview.mask)
    _text(body, "h2", "Elements")
    _codes(body)
    for each, actions in by_became.items():
        apart = each is Became.REMOVED  # of private elements there may be hundreds
        _elements(body, each, each.capitalize(), [action for action in actions if not (apart and is_private(action))])
        _elements(body, each, "Removed, of private blocks", [action for action in actions if apart and is_private(action)], is_open=False)
    if not preview.actions:
        _text(body, "p", _NOT_REACHED)
    return "<!doctype html>\n" + tostring(html, encoding="unicode", method="html")


def _text(parent: Element, name: str, text: str, *, kind: str = "") -> Element:
    made = SubElement(parent, name, {"class": kind} if kind else {})
    made.text = text
    return made


def _box(body: Element, kind: str, first: str, more: str) -> None:
    said = SubElement(SubElement(body, "div", {"class": f"box {kind}"}), "p")
    _text(said, "strong", first).tail = f" {more}"


def _folded(body: Element, title: str, *, is_open: bool = False) -> Element:
    made = SubElement(body, "details", {"open": ""} if is_open else {})
    _text(made, "summary", title)
    return made


def _table(parent: Element, columns: Sequence[str], *, kind: str = "") -> Element:
    table = SubElement(parent, "table", {"class": kind} if kind else {})
    heads = SubElement(SubElement(table, "thead"), "tr")
    for each in columns:
        SubElement(heads, "th", scope="col").text = each
    return SubElement(table, "tbody")


def _verdict(body: Element, preview: Preview) -> None:
    held = preview.held
    if held is None:
        _box(body, "leaves", "It would leave,", "as it is shown here. The second look found nothing of the original in it.")
    else:
        _box(body, "held", "It would be held, and nothing would leave.", f"{held.reason}: {held.says} {held.fix}")


def _summary(body: Element, by_became: Mapping[Became, Sequence[Action]]) -> None:
    _text(body, "h2", "In short")
    rows = _table(body, ("Elements", "", "What it means"), kind="short")
    for each, actions in by_became.items():
        row = SubElement(rows, "tr")
        _text(row, "td", f"{len(actions):,}", kind="number")
        _text(SubElement(row, "td"), "span", each, kind=f"mark {each}")
        _text(row, "td", each.meaning)
    _text(body, "p", _ADDED)


def _risks(body: Element, preview: Preview) -> None:
    risks = preview.risks
    _text(body, "h2", "Risky kinds, and masks")
    if risks.kinds:
        rows = _table(body, ("Kind", "What it is", "What becomes of it", "Who says so"))
        for each in risks.kinds:
            row = SubElement(rows, "tr")
            SubElement(row, "th", scope="row").text = each.kind
            for cell in (each.meaning, each.becomes, "the policy" if each.by_policy else "Hilum, where a policy says nothing"):
                _text(row, "td", cell)
    else:
        _text(body, "p", "By its header it is of no risky kind.")
    if risks.masks:
        _text(body, "p", risks.masks)


def _codes(body: Element) -> None:
    legend = _folded(body, "What the codes of the standard mean")
    _text(legend, "p", f"Actions of {EDITION} Table E.1-1a. {_OTHERWISE}")
    rows = _table(legend, ("Code", "Meaning"), kind="short")
    for code, meaning in CODES.items():
        row = SubElement(rows, "tr")
        SubElement(row, "th", scope="row").text = code
        _text(row, "td", meaning)


def _elements(body: Element, kind: Became, title: str, actions: Sequence[Action], *, is_open: bool = True) -> None:
    if not actions:
        return
    made = _folded(body, f"{title}: {len(actions):,}", is_open=is_open and kind is not Became.KEPT)
    columns = _COLUMNS[kind]
    rows = _table(made, ("Element", *(name for name, _, _ in columns)))
    for action in actions:
        row = SubElement(rows, "tr", {"class": kind})
        named = SubElement(row, "th", scope="row")
        named.text = action.keyword
        if action.keyword:
            SubElement(named, "br")
        _text(named, "code", action.path)
        for _, cell, of in columns:
            _text(row, "td", cell(action), kind=of)


def _pictures(body: Element, shown: Pictures) -> None:
    _text(body, "h2", f"Frame {shown.frame} of {shown.frames}, {shown.columns} x {shown.rows} pixels")
    both = SubElement(body, "div", {"class": "pictures"})
    for title, png, says in (("Before", shown.before, shown.before_says), ("After", shown.after, shown.after_says)):
        figure = SubElement(both, "figure")
        _text(figure, "figcaption", f"{title}. {says}".strip())
        if png:
            _picture(figure, shown, png, f"The frame {title.lower()} the policy")
    _text(body, "p", _LEGEND)
    if shown.text:
        places = ", ".join(str([left, top, right - left, bottom - top]) for left, top, right, bottom in shown.text)
        _text(body, "p", f"Text was found at {places}. What was not found may be there as well: look before you make a mask of it.")


def _picture(figure: Element, shown: Pictures, png: bytes, name: str) -> None:
    size = {"width": str(shown.columns), "height": str(shown.rows)}
    svg = SubElement(figure, "svg", {"viewBox": f"0 0 {shown.columns} {shown.rows}", "role": "img", "aria-label": name})
    SubElement(svg, "image", size, href="data:image/png;base64," + b64encode(png).decode("ascii"), preserveAspectRatio="none")
    for kind, path in _drawn(shown):
        SubElement(svg, "path", {"class": kind, "d": path, "fill-rule": "evenodd"})


def _drawn(shown: Pictures) -> Iterator[tuple[str, str]]:
    """What is drawn over both pictures: kinds, and paths as SVG has them."""
    if shown.outside:
        yield "mask", " ".join(map(_path, ((0, 0, shown.columns, shown.rows), *shown.regions)))
    yield from (("mask", _path(box)) for box in shown.boxes)
    yield from (("region", _path(box)) for box in shown.regions)
    yield from (("text", _path(box)) for box in shown.text)


def _path(box: Box) -> str:
    left, top, right, bottom = box
    return f"M{left} {top}H{right}V{bottom}H{left}Z"
