"""Every mistake in values that are to become a `Struct`, each by its dotted name: unknown keys, missing ones, values that do not fit.

msgspec itself stops at the first and speaks of Python's types.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from hilum.errors import Misconfigured
from hilum.kinds import kind_in_words


def nearest(name: str, known: Collection[str], *, cutoff: float = 0.5) -> str:
    """The one of `known` that `name` is probably meant to be, `""` if none is near."""
    alike = {each.casefold(): each for each in known}
    return next((alike[each] for each in difflib.get_close_matches(name.casefold(), alike, n=1, cutoff=cutoff)), "")


class Mistakes(Misconfigured):
    """Several at once, in `where`."""

    def __init__(self, each: Sequence[Misconfigured], where: str) -> None:
        said = "".join(f"\n- {one}" for one in each)
        super().__init__("several-mistakes", f"There are {len(each)} mistakes in {where}:{said}", fix="")
        self.each = tuple(each)


def together(problems: Sequence[Misconfigured], where: str = "the settings") -> Misconfigured:
    """One error for all of `problems`, of which there is at least one; `where` they are, in words."""
    each = [one for problem in problems for one in (problem.each if isinstance(problem, Mistakes) else (problem,))]
    return each[0] if len(each) == 1 else Mistakes(each, where)


def tried(*checks: Callable[[], object]) -> list[Misconfigured]:
    """What is wrong according to `checks`, each of which is made whatever the others say."""
    problems = []
    for check in checks:
        try:
            check()
        except Misconfigured as error:
            problems.append(error)
    return problems


def misfits(
    value: Any,
    kind: Any,
    dotted: str = "",
    *,
    origin: Callable[[str], str] = lambda _: "",
    secret: Callable[[str], bool] = lambda _: False,
) -> Iterator[Misconfigured]:
    """What is wrong with `value`, which is to become a `kind` and has the name `dotted`.

    `origin` tells where the value of a name comes from, in words that can follow it; `secret` whose value is not to be shown.
    """
    bare = get_args(kind)[0] if hasattr(kind, "__metadata__") else kind
    if get_origin(bare) is UnionType and len(others := [each for each in get_args(bare) if each is not NoneType]) == 1:
        bare = others[0]  # a table that may be left out
    if isinstance(value, dict) and isinstance(bare, type) and issubclass(bare, Struct):
        yield from _in_table(value, bare, dotted, origin, secret)
    elif isinstance(value, dict) and get_origin(bare) in (dict, Mapping):
        key, kind = get_args(bare)
        for name, item in value.items():
            if not _fits(name, key):
                fix = f"Allowed: {kind_in_words(key)}."
                yield Misconfigured("setting-invalid", f"{dotted} cannot have an entry {json.dumps(name)}{origin(dotted)}.", fix=fix)
            yield from misfits(item, kind, f"{dotted}.{name}", origin=origin, secret=secret)
    elif isinstance(value, list) and get_origin(bare) in (list, tuple):
        for n, item in enumerate(value, 1):
            name = item.get("name") if isinstance(item, dict) else None
            label = name if name and isinstance(name, str) else f"#{n}"
            yield from misfits(item, get_args(bare)[0], f"{dotted}[{label}]", origin=origin, secret=secret)
    else:
        try:
            msgspec.convert(value, kind, strict=False)
        except msgspec.ValidationError:
            text = json.dumps(value, default=str, ensure_ascii=False)
            shown = "what it is" if secret(dotted) else text if len(text) <= 100 else f"{text[:100]}…"
            words = [word for word in get_args(bare) if isinstance(word, str)]
            near = nearest(str(value), words) if words else ""
            fix = (f"Did you mean {near}? " if near else "") + f"Allowed: {kind_in_words(kind)}."
            yield Misconfigured("setting-invalid", f"{dotted} cannot be {shown}{origin(dotted)}.", fix=fix)


def _fits(value: Any, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError:
        return False
    return True


def _in_table(
    table: dict[str, Any], kind: type[Struct], dotted: str, origin: Callable[[str], str], secret: Callable[[str], bool]
) -> Iterator[Misconfigured]:
    kinds = get_type_hints(kind, include_extras=True)
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    prefix = f"{dotted}." if dotted else ""
    found = False
    for name, item in table.items():
        if name not in fields:
            found = True
            near = nearest(name, fields)
            fix = f"Did you mean {near}?" if near else f"Known here: {', '.join(sorted(fields))}."
            yield Misconfigured("setting-unknown", f"There is no setting {prefix}{name}{origin(prefix + name)}.", fix=fix)
            continue
        for problem in misfits(item, kinds[name], prefix + name, origin=origin, secret=secret):
            found = True
            yield problem
    for name, field in fields.items():
        if field.required and name not in table:
            found = True
            yield Misconfigured("setting-missing", f"{prefix}{name} is missing.", fix=f"Set it: {kind_in_words(kinds[name])}.")
    if not found:
        try:  # what the keys are together
            msgspec.convert(table, kind, strict=False)
        except msgspec.ValidationError as error:
            sentence = str(error).partition(" - at `$")[0]
            yield Misconfigured("setting-invalid", f"{dotted}: {sentence}{origin(dotted)}.", fix="Correct one of them.")
