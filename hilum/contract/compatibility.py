"""Whether a schema may replace a released one: in both directions, and with every earlier one.

- What a released schema says of a member stays: its type, its values, its bounds, its default, whether it is required.
- A new member is optional and has a place of its own. Readers ignore members that they do not know.
- A vocabulary of an enumeration class is open and may grow (`x-known-values`); a closed one (`enum`) may not.
- Topic, PHI class, Kafka key and subject stay.

So everything that was ever said stays true, and a reader or writer of any release understands every other. Whatever cannot
keep to that is a new major version: another class, another topic (`….v2`), beside the old one for a while.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

#: Keywords that only explain, or that have a rule of their own below.
FREE = {"$schema", "$defs", "$ref", "title", "description", "examples", "properties", "required", "items", "anyOf", "x-known-values"}


def incompatibilities(released: Schema, now: Schema) -> list[str]:
    """One sentence for each change from `released` to `now` that some reader or writer would not survive; `[]` if there is none."""
    return _Comparison(released, now).sentences()


class _Comparison:
    def __init__(self, released: Schema, now: Schema) -> None:
        self._released = released
        self._now = now
        self._seen: set[tuple[str, str]] = set()
        self._found: list[str] = []

    def sentences(self) -> list[str]:
        self._compare(self._released, self._now, "")
        return self._found

    def _compare(self, old: Schema, new: Schema, path: str) -> None:
        refs = (old.get("$ref", ""), new.get("$ref", ""))
        if all(refs):
            if refs in self._seen:
                return
            self._seen.add(refs)
        old, new = _resolved(self._released, old), _resolved(self._now, new)
        for keyword in sorted((old.keys() | new.keys()) - FREE):
            if keyword not in old or keyword not in new or old[keyword] != new[keyword]:
                self._say(path, f"{keyword} was {_shown(old, keyword)} and would become {_shown(new, keyword)}")
        self._compare_members(old, new, path)
        self._compare_known_values(old, new, path)
        if "items" in old and "items" in new:
            self._compare(old["items"], new["items"], f"{path}[]")
        elif "items" in old or "items" in new:
            self._say(path, "whether its items have a schema would change")
        choices = old.get("anyOf", []), new.get("anyOf", [])
        if len(choices[0]) != len(choices[1]):
            self._say(path, f"it had {len(choices[0])} alternatives and would have {len(choices[1])}")
        for before, after in zip(*choices, strict=False):
            self._compare(before, after, path)

    def _compare_members(self, old: Schema, new: Schema, path: str) -> None:
        before, after = old.get("properties", {}), new.get("properties", {})
        for name, member in before.items():
            here = f"{path}.{name}" if path else name
            if name not in after:
                self._say(here, "it would be gone, and readers rely on it")
                continue
            was, would_be = name in old.get("required", ()), name in new.get("required", ())
            if was and not would_be:
                self._say(here, "it would be optional, and older readers require it")
            elif would_be and not was:
                self._say(here, "it would be required, and older messages lack it")
            self._compare(member, after[name], here)
        for name in after.keys() - before.keys():
            if name in new.get("required", ()):
                self._say(f"{path}.{name}" if path else name, "it is new and required, and older messages lack it; give it a default")

    def _compare_known_values(self, old: Schema, new: Schema, path: str) -> None:
        if ("x-known-values" in old) != ("x-known-values" in new):
            self._say(path, "an open vocabulary stays open, a closed one closed")
        for word in old.get("x-known-values", {}).keys() - new.get("x-known-values", {}).keys():
            self._say(path, f"the word {word!r} would be gone, and older messages have it")

    def _say(self, path: str, what: str) -> None:
        self._found.append(f"{path or 'the event'}: {what}.")


def _resolved(root: Schema, schema: Schema) -> Schema:
    """`schema`, or what it refers to with what stands beside the reference laid over."""
    if "$ref" not in schema:
        return schema
    target: Any = root
    for part in schema["$ref"].removeprefix("#/").split("/"):
        target = target[part]
    return {**target, **{keyword: value for keyword, value in schema.items() if keyword != "$ref"}}


def _shown(schema: Schema, keyword: str) -> str:
    return repr(schema[keyword]) if keyword in schema else "absent"
