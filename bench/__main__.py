"""`./dev bench` lists the benchmarks, `./dev bench NAME [ARGS]` runs one."""

import ast
import importlib
import pkgutil
import sys
from importlib.util import find_spec
from pathlib import Path

import bench

_PARTS = (
    "report",
    "peers",
    "running",
    "wire",
    "conversations",
    "patient",
    "web_requests",
    "web_patient",
    "hapi",
    "deid_peers",
    "deid_mutations",
)  # modules that the benchmarks share


def _names() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(bench.__path__) if module.name not in ("__main__", *_PARTS)]


def _purpose(name: str) -> str:
    spec = find_spec(f"bench.{name}")
    assert spec is not None
    assert spec.origin is not None
    return (ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or "").splitlines()[0]


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        for name in _names():
            print(f"{name:12} {_purpose(name)}")
        return
    name, *arguments = sys.argv[1:]
    if name not in _names():
        sys.exit(f"There is no benchmark {name!r}. Known: {', '.join(_names())}.")
    importlib.import_module(f"bench.{name}").main(arguments)


main()
