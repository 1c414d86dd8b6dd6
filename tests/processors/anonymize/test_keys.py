from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hilum.errors import Misconfigured
from processors.anonymize.keys import Key, check_rights, list_keys, make_key, read_key, rotate


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys" / "research"
    make_key(path)
    return path


def refusal(path: Path, key_id: str = "") -> Misconfigured:
    with pytest.raises(Misconfigured) as stop:
        read_key(path, key_id)
    assert stop.value.fix
    return stop.value


def test_a_key_is_made_once_for_its_owner_only_whoever_asks_first(tmp_path: Path) -> None:
    path = tmp_path / "new" / "key"
    with ThreadPoolExecutor(8) as threads:
        found = set(threads.map(lambda _: make_key(path).secret, range(8)))

    assert len(found) == 1
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["key"]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o620, 0o601, 0o604])
def test_a_key_that_others_may_use_is_refused_with_the_fix(file: Path, mode: int) -> None:
    file.chmod(mode)

    stop = refusal(file)

    assert stop.reason == "key-open"
    assert f"chmod 600 {file}" in stop.fix


def test_a_key_that_belongs_to_another_account_is_refused(file: Path) -> None:
    status = list(file.stat()[:10])
    status[stat.ST_UID] = os.geteuid() + 1

    with pytest.raises(Misconfigured, match="belongs to another account") as stop:
        check_rights(file, os.stat_result(status))
    assert stop.value.reason == "key-foreign"


def test_a_key_that_belongs_to_the_machines_administrator_is_taken(file: Path) -> None:
    status = list(file.stat()[:10])
    status[stat.ST_UID] = 0

    check_rights(file, os.stat_result(status))


def test_a_key_that_only_its_owner_reads_is_taken(file: Path) -> None:
    file.chmod(0o400)

    assert len(read_key(file).secret) == 32


def test_a_link_is_looked_at_where_it_leads(file: Path) -> None:
    link = file.with_name("link")
    link.symlink_to(file)
    file.chmod(0o644)

    assert refusal(link).reason == "key-open"


def test_a_missing_key_is_said_with_how_to_make_one(tmp_path: Path) -> None:
    stop = refusal(tmp_path / "none")

    assert stop.reason == "key-missing"
    assert "hilum deid keys make" in stop.fix


@pytest.mark.parametrize("text", ["", "short", "0" * 64, "12" * 32, "x" * 64, "ab" * 40])
def test_what_is_no_key_by_chance_is_refused(file: Path, text: str) -> None:
    file.write_text(text)

    stop = refusal(file)

    assert stop.reason == "key-malformed"
    assert not text or text not in str(stop)


def test_a_folder_or_a_pipe_is_no_key(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir(mode=0o700)
    os.mkfifo(tmp_path / "pipe", 0o600)

    assert {refusal(tmp_path / name).reason for name in ("folder", "pipe")} == {"key-unreadable"}


def test_the_id_is_of_the_key_alone(file: Path) -> None:
    copy = file.with_name("copy")
    copy.write_text(file.read_text().upper() + "\n")
    copy.chmod(0o600)

    assert read_key(copy) == read_key(file)
    assert len(read_key(file).id) == 12


def test_no_text_form_shows_the_key(file: Path) -> None:
    key = read_key(file)

    assert f"{key} {key!r}" == f"Key({key.id}) Key({key.id})"


def test_rotation_puts_a_new_key_into_force_and_keeps_the_old_readable(file: Path) -> None:
    first = read_key(file)
    old, new = rotate(file)
    _, newest = rotate(file)

    assert old == first
    assert read_key(file) == newest
    assert [read_key(file, each.id) for each in (first, new, newest)] == [first, new, newest]
    assert list_keys(file)[0].id == newest.id
    assert {each.id for each in list_keys(file)} == {first.id, new.id, newest.id}
    assert [each.in_force for each in list_keys(file)] == [True, False, False]
    assert {each.stat().st_mode & 0o777 for each in file.parent.iterdir()} == {0o600}


def test_a_rotation_that_was_cut_short_lists_the_key_once_and_may_be_repeated(file: Path) -> None:
    key = read_key(file)
    os.link(file, file.with_name(f"{file.name}.{key.id}"))

    assert [each.id for each in list_keys(file)] == [key.id]
    assert rotate(file)[0] == key
    assert read_key(file, key.id) == key


def test_rotations_at_the_same_time_lose_no_key(file: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        pairs: list[tuple[Key, Key]] = list(threads.map(lambda _: rotate(file), range(8)))

    assert {each.id for each in list_keys(file)} == {key.id for pair in pairs for key in pair}
    assert len(list_keys(file)) == 9


def test_an_unknown_key_is_said_with_where_it_belongs(file: Path) -> None:
    stop = refusal(file, "0123456789ab")

    assert stop.reason == "key-unknown"
    assert "research.0123456789ab" in stop.fix
    assert refusal(file, "../../secret").reason == "key-unknown"


def test_a_former_key_under_a_wrong_name_is_refused(file: Path) -> None:
    old, _ = rotate(file)
    former = file.with_name(f"{file.name}.{old.id}")
    former.write_bytes(file.read_bytes())

    assert refusal(file, old.id).reason == "key-malformed"


def test_a_key_behind_a_link_is_rotated_where_it_is_kept(file: Path) -> None:
    link = file.with_name("link")
    link.symlink_to(file)

    with pytest.raises(Misconfigured) as stop:
        rotate(link)
    assert stop.value.reason == "key-linked"
