"""`hilum dest test` tries policy and key of a destination, and what the policy needs, before it asks the destination."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from hilum.runtime.delivery.cleans import try_policy
from hilum.settings import Settings
from hilum.sink import Step, sink_of
from tests.hilum.test_anonymizing import key, settings

__all__ = ["key", "settings"]


def tried(settings: Settings) -> Step:
    table = settings.destinations["study"]
    [step] = try_policy("study", sink_of("study", table), settings)
    return step


def with_policy(settings: Settings, folder: Path, policy: str) -> Settings:
    (folder / "research.toml").write_text(policy)
    return replace(settings, deid=replace(settings.deid, policies=str(folder)))


def test_what_is_in_force_is_told_by_version_and_key(settings: Settings) -> None:
    step = tried(settings)

    assert step.ok
    assert step.says.startswith("research ")
    assert "with key" in step.says


def test_a_destination_without_policy_has_no_such_step(settings: Settings, tmp_path: Path) -> None:
    assert list(try_policy("plain", sink_of("plain", {"type": "folder", "path": str(tmp_path)}), settings)) == []


def test_a_key_that_others_may_read_fails_with_what_to_do(settings: Settings, key: Path) -> None:
    key.chmod(0o644)

    step = tried(settings)

    assert not step.ok
    assert step.fix


def test_a_policy_that_is_wrong_fails(settings: Settings, tmp_path: Path) -> None:
    assert "retain-everything" in tried(with_policy(settings, tmp_path, 'options = ["retain-everything"]')).says


@pytest.mark.parametrize(("defacer", "ok"), [((), False), (("/nonexistent/deface",), False), ((sys.executable,), True)])
def test_a_policy_that_has_heads_defaced_needs_a_program_that_can_be_run(
    settings: Settings, tmp_path: Path, defacer: tuple[str, ...], ok: bool
) -> None:
    own = with_policy(settings, tmp_path, '[kinds]\nhead-volume = "deface"')

    step = tried(replace(own, deid=replace(own.deid, defacer=(*defacer, "{input}", "{output}") if defacer else ())))

    assert step.ok is ok
    assert ok or "heads defaced" in step.says


def test_a_policy_that_looks_for_text_needs_the_extra(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from processors.anonymize import text

    text._model.cache_clear()
    monkeypatch.setitem(sys.modules, "rapidocr", None)

    step = tried(with_policy(settings, tmp_path, '[text]\nfound = "hold"'))

    assert not step.ok
    assert "hilum[ocr]" in step.fix
