"""The top level is the customer's, and everything is where its name says."""

from __future__ import annotations

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


def test_test_files_have_names_of_their_own_and_are_in_no_package() -> None:
    names = Counter(path.name for path in modules("tests"))

    assert "__init__.py" not in names
    assert [name for name, count in names.items() if count > 1 and name != "conftest.py"] == []


@pytest.mark.parametrize("package", STAGES)
def test_the_import_contracts_cover_each_stage_package(package: str) -> None:
    contracts = (ROOT / ".importlinter").read_text("utf-8")

    assert contracts.count(f"    {package}\n") == 3, "as a root package, forbidden to the core, and independent of its sisters"
