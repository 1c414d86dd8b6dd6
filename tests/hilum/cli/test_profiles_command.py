"""How `hilum dest profiles` answers."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from hilum.cli import app
from hilum.errors import Misconfigured
from hilum.profiles import names, profile


def lines(*arguments: str) -> list[str]:
    return CliRunner().invoke(app, ["dest", "profiles", *arguments]).stdout.splitlines()


def test_every_profile_is_listed_with_how_much_is_known_of_it() -> None:
    _, *rows = lines()

    assert [row.split("\t")[0] for row in rows] == names()
    assert {row.split("\t")[0] for row in rows if row.endswith("a stub")} == {name for name in names() if profile(name).is_stub}


def test_one_profile_is_shown_with_the_ground_of_each_fact_and_what_it_inherits() -> None:
    shown = lines("azure")

    assert shown[0].startswith("DICOM service (Azure Health Data Services, Medical Imaging Server) (Microsoft; versions: ")
    assert any(line.startswith("reasons.0xB00E\talready_there\tdocumented\t") for line in shown)
    assert any(line.startswith("http.429\toutage\tdefault (inherited)\t") for line in shown)


def test_a_stub_says_that_it_is_one() -> None:
    assert "A stub: how this product takes objects is not known here" in "\n".join(lines("powershare"))


def test_json_has_every_fact() -> None:
    listed = json.loads("\n".join(lines("--json")))
    one = json.loads("\n".join(lines("dcm4chee", "--json")))

    assert [each["name"] for each in listed] == names()
    assert len(one["facts"]) == len(profile("dcm4chee").rows())
    assert {"field", "value", "basis", "source", "says", "inherited"} == one["facts"][0].keys()


def test_a_profile_that_there_is_not_is_refused_with_the_nearest() -> None:
    error = CliRunner().invoke(app, ["dest", "profiles", "sectr"]).exception

    assert isinstance(error, Misconfigured)
    assert error.fix == "Did you mean sectra?"
