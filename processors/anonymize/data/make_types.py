"""Write `types.json`: the type of each attribute at its place in the IOD of each storage SOP class (PS3.3), for `types.py`.

Run by hand; the result is committed. It reads the tables of PS3.3 as the package highdicom (MIT licence, not needed at run time) has
them, and of retired classes takes the modules of their successors.

    pip install highdicom && python -m processors.anonymize.data.make_types
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.uid import UID_dictionary  # type: ignore[attr-defined]

HERE = Path(__file__).parent
#: Type 3 is what is not in the file; if several modules have an attribute, the strictest holds.
STRICTEST = ("1", "1C", "2", "2C")
SUCCESSORS = {
    "1.2.840.10008.5.1.4.1.1.3": "1.2.840.10008.5.1.4.1.1.3.1",
    "1.2.840.10008.5.1.4.1.1.5": "1.2.840.10008.5.1.4.1.1.20",
    "1.2.840.10008.5.1.4.1.1.6": "1.2.840.10008.5.1.4.1.1.6.1",
    "1.2.840.10008.5.1.4.1.1.12.3": "1.2.840.10008.5.1.4.1.1.12.1",
}
#: Of a class that the tables do not have.
COMMON = ("patient", "general-study", "patient-study", "general-series", "general-equipment", "general-image", "sop-common")
#: A medium's directory is no object that is sent.
DIRECTORY = "1.2.840.10008.1.3.10"


def tree(attributes: Iterable[Mapping[str, Any]], root: dict[str, list[Any]]) -> None:
    """Add a module's attributes to `root`: by tag, the type and what lies in it."""
    for attribute in attributes:
        tag = tag_for_keyword(attribute["keyword"])
        path = [tag_for_keyword(keyword) for keyword in attribute["path"]]
        if tag is None or None in path:
            continue
        name = f"{tag:08X}"
        at = root
        for step in path:
            at = at.setdefault(f"{step:08X}", ["3", {}])[1]
        entry = at.setdefault(name, ["3", {}])
        if attribute["type"] in STRICTEST and (entry[0] == "3" or STRICTEST.index(attribute["type"]) < STRICTEST.index(entry[0])):
            entry[0] = attribute["type"]


class Nodes:
    """Equal subtrees once."""

    def __init__(self) -> None:
        self.all: list[dict[str, list[Any]]] = [{}]
        self._known: dict[str, int] = {"{}": 0}

    def add(self, root: Mapping[str, list[Any]]) -> int:
        """The number of a subtree; 0 is the empty one."""
        node = {}
        for tag, (kind, below) in sorted(root.items()):
            child = self.add(below)
            if kind != "3" or child:
                node[tag] = [kind, child] if child else [kind]
        key = json.dumps(node)
        if key not in self._known:
            self._known[key] = len(self.all)
            self.all.append(node)
        return self._known[key]


def main() -> None:
    """Write the file."""
    standard = importlib.resources.files("highdicom") / "_standard"
    modules, iods, classes = (
        json.loads((standard / name).read_text(encoding="utf-8"))
        for name in ("module_attribute_map.json", "iod_module_map.json", "sop_class_iod_map.json")
    )
    nodes, numbers = Nodes(), {}
    for iod, of_iod in iods.items():
        root: dict[str, list[Any]] = {}
        for module in of_iod:
            tree(modules.get(module["key"], ()), root)
        numbers[iod] = nodes.add(root)
    root = {}
    for key in COMMON:
        tree(modules[key], root)
    common = nodes.add(root)
    found = {}
    for uid, (name, kind, _, _, _) in sorted(UID_dictionary.items()):
        if kind == "SOP Class" and "Storage" in name and "Commitment" not in name and "Directory" not in name and "Inventory" not in name:
            iod = classes.get(uid) or classes.get(SUCCESSORS.get(uid, ""))
            found[uid] = numbers.get(iod, common)
    for uid, iod in sorted(classes.items()):
        if uid not in found and iod in numbers and uid != DIRECTORY:
            found[uid] = numbers[iod]
    lines = ["{", f'"source": "PS3.3 as in highdicom {version("highdicom")}",', '"nodes": [']
    lines += [",\n".join(json.dumps(node, separators=(",", ":")) for node in nodes.all), "],", '"classes": {']
    lines += [",\n".join(f'"{uid}": {number}' for uid, number in found.items()), "}", "}"]
    (HERE / "types.json").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
