"""What was de-identified here before, or made of that by a receiver, is not de-identified once more unless that is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from hilum.anonymizing import NotAnonymized, anonymizer_of
from hilum.deid_sections import Deid
from hilum.edited import part10_of
from hilum.runtime.delivery.cleans import cleans_of
from hilum.settings import Settings
from hilum.sink import Delivery, sink_of
from hilum.testing import MemoryStore
from tests.hilum.test_anonymizing import NONE, SECRET, Known, key_file, stored


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return key_file(tmp_path)


@pytest.fixture
def settings(key: Path, tmp_path: Path) -> Settings:
    destinations = {"study": {"type": "folder", "path": str(tmp_path), "policy": "research"}}
    return Settings(destinations=destinations, deid=Deid(key_path=str(key), policies=str(NONE)))


def asking(settings: Settings) -> Settings:
    table = {**settings.destinations["study"], "deidentified": "again"}
    return replace(settings, destinations={"study": table})


def made_of_what_left(settings: Settings, store: MemoryStore, key_id: str = "", **more: Any) -> Delivery:
    """What a receiver made of an object that left, with a UID of its own."""
    key_id = key_id or anonymizer_of("study", "research", settings).key_id
    said = {"PatientIdentityRemoved": "YES", "DeidentificationMethod": ["PS3.15", "Hilum policy basic", f"key {key_id}"]}
    return stored(store, **{**said, **more})


def sent(settings: Settings, store: MemoryStore, delivery: Delivery, *studies: str) -> bytes:
    cleans = cleans_of("study", sink_of("study", settings.destinations["study"]), settings)
    assert cleans is not None
    (going,) = cleans.of([delivery], Known(lambda _ids: None, made_here=studies))
    return part10_of(store, going).file()


def test_what_names_our_key_is_held_whatever_policy_made_it(settings: Settings) -> None:
    store = MemoryStore()

    with pytest.raises(NotAnonymized) as held:
        sent(settings, store, made_of_what_left(settings, store))

    assert held.value.reason == "deidentified-before"
    assert 'deidentified = "again"' in held.value.fix


def test_what_names_a_former_key_of_ours_is_held(settings: Settings, key: Path) -> None:
    store, former = MemoryStore(), "0123456789ab"
    key.with_name(f"{key.name}.{former}").write_text(SECRET)

    with pytest.raises(NotAnonymized, match="pseudonyms of pseudonyms"):
        sent(settings, store, made_of_what_left(settings, store, former))


def test_what_is_of_a_study_that_left_is_held_whatever_it_says_of_itself(settings: Settings) -> None:
    store = MemoryStore()
    uid = anonymizer_of("study", "research", settings).uid("1.2.3.1")

    with pytest.raises(NotAnonymized) as held:
        sent(settings, store, stored(store, StudyInstanceUID=uid), uid)

    assert held.value.reason == "deidentified-before"


@pytest.mark.parametrize("key_id", ["", "0123456789ab"])
def test_what_is_asked_for_or_of_another_site_leaves(settings: Settings, key_id: str) -> None:
    store = MemoryStore()
    uid = anonymizer_of("study", "research", settings).uid("1.2.3.1")

    if key_id:
        assert sent(settings, store, made_of_what_left(settings, store, key_id))
    else:
        assert sent(asking(settings), store, made_of_what_left(settings, store, StudyInstanceUID=uid), uid)
