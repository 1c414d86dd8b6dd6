"""The top level is the customer's, and everything is where its name says."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STAGES = ("ingest", "processors", "sinks")
LINES = 400


def modules(*packages: str) -> list[Path]:
    return [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]


def parts(package: str) -> list[str]:
    """The modules and folders directly in a stage package: one processor, one sink or one adapter each."""
    found = (path for path in sorted((ROOT / package).iterdir()) if path.suffix == ".py" or (path / "__init__.py").is_file())
    return [path.stem for path in found if path.stem != "__init__"]


@pytest.mark.parametrize("name", [*STAGES, "schemas", "tests", "docker-compose.yml", "README.md"])
def test_the_top_level_has(name: str) -> None:
    assert (ROOT / name).exists()


@pytest.mark.parametrize(("package", "part"), [(package, part) for package in STAGES for part in parts(package)])
def test_each_stage_module_has_its_tests_where_they_are_looked_for(package: str, part: str) -> None:
    mirror = ROOT / "tests" / package

    assert (mirror / part).is_dir() or list(mirror.glob(f"test_*{part}*.py")), f"tests/{package} has no tests of {package}/{part}"


def test_no_module_is_too_long_to_be_read_in_one_sitting() -> None:
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text("utf-8").splitlines()) for path in modules("hilum", *STAGES, "bench")}

    assert {path: length for path, length in lengths.items() if length > LINES} == {}, "make it a folder of the same name"


def test_warnings_are_silenced_in_one_place_since_threads_would_lift_or_leave_each_others_filters() -> None:
    assert [path.relative_to(ROOT).as_posix() for path in modules("hilum", *STAGES) if "catch_warnings(" in path.read_text("utf-8")] == []


def test_test_files_have_names_of_their_own_and_are_in_no_package() -> None:
    names = Counter(path.name for path in modules("tests"))

    assert "__init__.py" not in names
    assert [name for name, count in names.items() if count > 1 and name != "conftest.py"] == []


@pytest.mark.parametrize("package", STAGES)
def test_the_import_contracts_cover_each_stage_package(package: str) -> None:
    contracts = (ROOT / ".importlinter").read_text("utf-8")

    assert contracts.count(f"    {package}\n") == 3, "as a root package, forbidden to the core, and independent of its sisters"


def imported(path: Path) -> set[str]:
    """The top-level packages of others that a module imports anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"hilum", *STAGES}


def names_in(requirement: str) -> list[str]:
    """`psycopg[binary,pool]>=3.2` is psycopg and, by their names, psycopg-binary and psycopg-pool."""
    name, _, extras = re.split(r"[^\w.,\[-]", requirement)[0].lower().partition("[")
    return [name, *(f"{name}-{extra}" for extra in extras.split(",") if extra)]


def test_whatever_is_imported_is_declared_so_that_an_installation_without_the_workshop_runs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    requirements = [*project["dependencies"], *project["optional-dependencies"]["embedded"]]
    declared = {name for requirement in requirements for name in names_in(requirement)}
    providers = importlib.metadata.packages_distributions()
    missing = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules("hilum", *STAGES)
        for name in imported(path)
        if not {provider.lower().replace("_", "-") for provider in providers.get(name, ())} & declared
    }

    # The generator of schemas/ runs in a checkout only.
    assert missing - {"hilum/contract/files.py imports yaml"} == set()


def test_the_lock_file_knows_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    locked = next(each for each in tomllib.loads((ROOT / "uv.lock").read_text("utf-8"))["package"] if each["name"] == "hilum")
    wanted = {"dependencies": project["project"]["dependencies"], **project["project"]["optional-dependencies"]}

    for group, requirements in {**wanted, "dev": project["dependency-groups"]["dev"]}.items():
        known = {**locked, **locked["optional-dependencies"], **locked["dev-dependencies"]}[group]
        assert {each["name"] for each in known} == {names_in(requirement)[0] for requirement in requirements}, f"{group}: run uv lock"
