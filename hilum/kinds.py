"""What values a type of the settings takes, in words: for reference pages, and for errors that name a value that does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_origin

from msgspec import Meta

_NAMES: dict[Any, str] = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path"}


def kind_in_words(hint: Any, quoted: Callable[[str], str] = json.dumps) -> str:
    """`hint` as a person says it, its bounds included: `whole number from 0 to 65535`. `quoted` writes each of a few fixed words."""
    arguments = [each for each in get_args(hint) if each is not Ellipsis]
    if not arguments:
        return _NAMES[hint] if hint in _NAMES else str(getattr(hint, "__name__", hint))
    if hasattr(hint, "__metadata__"):
        return kind_in_words(arguments[0], quoted) + "".join(_bounds(each) for each in hint.__metadata__ if isinstance(each, Meta))
    if all(isinstance(each, str) for each in arguments):
        return " or ".join(quoted(each) for each in arguments)
    if get_origin(hint) in (tuple, list):
        return f"list of {kind_in_words(arguments[0], quoted)}"
    return " or ".join(kind_in_words(each, quoted) for each in arguments if each is not type(None))


def _bounds(meta: Meta) -> str:
    """A description says it all; otherwise what the numbers say."""
    if meta.description:
        return f": {meta.description}"
    if meta.ge is not None and meta.le is not None:
        return f" from {meta.ge:,} to {meta.le:,}"
    said = [
        f" {word} {bound:,}"
        for word, bound in (("above", meta.gt), ("at least", meta.ge), ("below", meta.lt), ("at most", meta.le))
        if bound is not None
    ]
    if meta.min_length is not None:
        said.append(" not empty" if meta.min_length == 1 else f" at least {meta.min_length} long")
    if meta.max_length is not None:
        said.append(f" at most {meta.max_length} long")
    return ",".join(said)
