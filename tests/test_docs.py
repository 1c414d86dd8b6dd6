"""What the pages say is there: generated pages are current, links lead somewhere, commands, settings and paths exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import typer

from hilum.bus import declared_topics
from hilum.cli import app
from hilum.events import DAY_MS
from hilum.reference import FOLDER, PAGES, pages
from hilum.services.process import LOG_LIMIT_BYTES
from hilum.settings import Settings, entries, load
from hilum.sink import sinks_of

ROOT = Path(__file__).parent.parent
MARKDOWN = sorted(path for path in ROOT.rglob("*.md") if not any(part.startswith(".") for part in path.relative_to(ROOT).parts))
NAMES = [path.relative_to(ROOT).as_posix() for path in MARKDOWN]
HAND_WRITTEN = [name for name in NAMES if not name.startswith(FOLDER.as_posix())]
SETTINGS = {name for name, _ in entries(Settings())}


@pytest.fixture(scope="module")
def generated() -> dict[str, str]:
    return pages()


@pytest.mark.parametrize("name", PAGES)
def test_a_reference_page_says_what_the_code_says(name: str, generated: dict[str, str]) -> None:
    assert (ROOT / FOLDER / f"{name}.md").read_text("utf-8") == generated[f"{name}.md"], "run ./dev write"


def test_no_reference_page_is_left_of_something_that_is_gone() -> None:
    assert {path.stem for path in (ROOT / FOLDER).glob("*.md")} == PAGES.keys()


# Links


def prose_of(name: str) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^(```|~~~).*?^\1\s*$", "", (ROOT / name).read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors_of(name: str) -> set[str]:
    """The anchors that GitHub makes of the page's headings."""
    headings = re.findall(r"^#+ +(.+?) *$", prose_of(name), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", NAMES)
def test_every_relative_link_leads_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(name)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        place = (ROOT / name).parent / path if path else ROOT / name
        assert place.exists(), f"{name} links to {target}"
        if anchor:
            assert anchor in anchors_of(place.resolve().relative_to(ROOT).as_posix()), f"{name} links to {target}"


# What is written between punctuation and the next words: "…; see the other page" refers to something, "who may see what" does not.
REFERS = re.compile(r"[.;:,(—] ?[Ss]ee (?!above|below)(.{0,40})")


@pytest.mark.parametrize("name", NAMES)
def test_whoever_says_see_says_where(name: str) -> None:
    assert [where for where in REFERS.findall(prose_of(name)) if where[0] not in "[`"] == []


def test_every_page_that_the_code_names_exists() -> None:
    named = {
        page
        for package in ("hilum", "ingest", "processors", "sinks")
        for file in (ROOT / package).rglob("*.py")
        for page in re.findall(r"docs/[\w/-]+\.md", file.read_text("utf-8"))
    }

    assert "docs/reference/rules.md" in named
    assert [page for page in sorted(named) if not (ROOT / page).is_file()] == []


def test_the_page_on_running_says_how_logs_are_kept() -> None:
    assert f"Over {LOG_LIMIT_BYTES >> 20} MB" in prose_of("docs/operations/running.md")


def test_the_page_for_administrators_says_how_long_events_are_kept() -> None:
    [days] = {topic.retention_ms / DAY_MS for topic in declared_topics() if topic.cleanup != "compact" and topic.retention_ms > 0}

    assert prose_of("docs/operations/administering.md").count(f"for {days:g} days") == 2


SECTIONS = re.split(r"^(?=## )", prose_of("docs/architecture.md"), flags=re.MULTILINE)


@pytest.mark.parametrize("section", SECTIONS, ids=[section.splitlines()[0].strip("# ")[:30] for section in SECTIONS])
def test_what_the_architecture_page_names_is_in_the_files_that_it_links_to(section: str) -> None:
    links = [ROOT / "docs" / target for target in re.findall(r"\]\((\.\./[^)#]+)\)", section)]
    files = {file for link in links for file in (link.glob("**/*.py") if link.is_dir() else [link]) if file.suffix == ".py"}
    sources = [file.read_text("utf-8") for file in files]
    for name in re.findall(r"(?<!\[)`(\w+(?:\.\w+)?)`", section):
        kind, _, method = name.rpartition(".")
        if name.endswith(".py"):
            pytest.fail(f"{name} is named and not linked to")
        if kind:
            found = any(
                re.search(rf"^class {kind}\b", s, re.MULTILINE) and re.search(rf"^    def {method}\b", s, re.MULTILINE) for s in sources
            )
        else:
            found = any(re.search(rf"\b{name}\b", source) for source in sources)
        assert found, f"{name} is in none of {', '.join(sorted(file.name for file in files))}"


# Commands


def code_of(name: str) -> Iterator[str]:
    """Each line of the page's console blocks, and each piece of code in its prose."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```\s*$", (ROOT / name).read_text("utf-8"), re.MULTILINE | re.DOTALL):
        if language in ("console", "sh", "bash", "shell"):
            yield from block.replace("\\\n", " ").splitlines()
    yield from re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose_of(name))


def said_commands(name: str) -> list[list[str]]:
    """The words of each `hilum …` and `./dev …` command; `a|b` stands for two commands."""
    found = []
    for line in code_of(name):
        text = re.sub(r"^\$ ", "", line.strip())
        if re.match(r"(\./dev|hilum)( |$)", text) and text != "hilum":
            words = [re.split(r"\|(?!$)", word) for word in shlex.split(text, comments=True)]
            found += [list(each) for each in product(*words)]
    return found


@pytest.mark.parametrize("name", [name for name in HAND_WRITTEN if name.startswith("docs/operations/")])
def test_a_page_on_operations_says_first_which_hilum_its_commands_mean(name: str) -> None:
    beginning = (ROOT / name).read_text("utf-8").partition("\n## ")[0]

    assert "`--data` and `--config`" in beginning
    assert "HILUM_DATA" in beginning
    assert any({"--data", "--config"} <= set(words) for words in said_commands(name))


@cache
def hilum_command() -> Any:
    return typer.main.get_command(app)  # which takes a tenth of a second, and pages name hundreds of commands


def check_hilum(words: list[str], where: str) -> None:
    command = hilum_command()
    rest = list(words)
    while rest and getattr(command, "commands", None) is not None:
        word = rest.pop(0)
        if word in ("…", "...", "ARGS", "--help"):
            return
        if word.startswith("-"):
            rest.insert(0, word)
            break
        assert word in command.commands, f"{where}: there is no command hilum {' '.join(words)}"
        command = command.commands[word]
    options = {option for each in getattr(command, "params", []) for option in (*each.opts, *each.secondary_opts)} | {"--help"}
    for word in rest:
        bare = word.strip("[]").partition("=")[0]
        assert not bare.startswith("-") or bare in options, f"{where}: hilum {' '.join(words)} has no option {bare}"


@pytest.mark.parametrize("name", HAND_WRITTEN)
def test_every_command_exists(name: str) -> None:
    launcher = set(re.findall(r"^    ([a-z]+)\)$", (ROOT / "dev").read_text("utf-8"), re.MULTILINE))
    for program, *words in said_commands(name):
        if program == "hilum":
            check_hilum(words, name)
        elif words and words[0] not in ("…", "COMMAND"):
            assert words[0] in launcher, f"{name}: there is no ./dev {words[0]}"
            if words[0] in ("hilum", "demo"):
                check_hilum(words[1:] if words[0] == "hilum" else words, name)


# Settings


@pytest.mark.parametrize("name", NAMES)
def test_every_settings_file_shown_whole_is_right(name: str, tmp_path: Path) -> None:
    for block in re.findall(r"^```toml\n(.*?)^```\s*$", (ROOT / name).read_text("utf-8"), re.MULTILINE | re.DOTALL):
        file = tmp_path / "hilum.toml"
        file.write_text(block, encoding="utf-8")
        sinks_of(load(file, {}).settings)


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_that_is_named_exists(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    for variable in re.findall(r"\bHILUM_[A-Z0-9]+__[A-Z0-9_]*[A-Z0-9]\b", text):
        dotted = variable.removeprefix("HILUM_").lower().replace("__", ".")
        assert {dotted, dotted.removesuffix("_file")} & SETTINGS, f"{name} names {variable}"
    sections = {setting.partition(".")[0] for setting in SETTINGS if "." in setting}
    for section, key in re.findall(r"`([a-z0-9]+)\.([a-z0-9_]+)`", text):
        if section in sections and key not in ("py", "sqlite") and not (ROOT / "hilum" / f"{section}.{key}").exists():
            assert f"{section}.{key}" in SETTINGS, f"{name} names {section}.{key}"


# Paths


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("docs/decisions/")])  # they name what is not, too
def test_every_path_that_is_named_exists(name: str) -> None:
    tops = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    for piece in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose_of(name)):
        path = piece.partition("::")[0].partition(" ")[0].rstrip("/")
        if re.fullmatch(r"[\w./*-]+", path) and "/" in path and path.partition("/")[0] in tops:
            assert list(ROOT.glob(path)), f"{name} names {path}"
