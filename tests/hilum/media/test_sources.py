from __future__ import annotations

import os
import struct
import zipfile
from pathlib import Path

import pytest

from hilum.media import sources
from hilum.media.errors import Skipped, Unreadable, Why
from hilum.media.sources import Archive, File, Identity, Source, delete, is_archive, move, shown, walk


def read(source: Source) -> bytes:
    parts = []
    with source.open() as content:
        while part := content.read(1000):
            parts.append(part)
    return b"".join(parts)


def refused(source: Source) -> Why:
    with pytest.raises(Unreadable) as error:
        read(source)
    return error.value.why


def an_archive(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_a_file_is_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "IM1").write_bytes(b"x" * 2500)

    assert read(File(tmp_path / "IM1")) == b"x" * 2500


def test_links_and_pipes_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "IM1").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "IM1")
    os.mkfifo(tmp_path / "pipe")

    for name in ("link", "pipe"):
        with pytest.raises(Skipped) as skipped:
            read(File(tmp_path / name))
        assert skipped.value.why is Why.LINK


def test_a_file_that_is_gone_cannot_be_read(tmp_path: Path) -> None:
    assert refused(File(tmp_path / "IM1")) is Why.READ_ERROR


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "IM1"
    path.write_bytes(b"x")

    def read_slowly() -> None:
        with File(path).open() as content:
            content.read(10)
            path.write_bytes(b"xy")

    with pytest.raises(Unreadable) as error:
        read_slowly()
    assert error.value.why is Why.CHANGED


def test_another_file_than_the_one_expected_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "IM1"
    path.write_bytes(b"x")
    seen = Identity.of(path.stat())
    path.write_bytes(b"another")

    assert refused(File(path, seen)) is Why.CHANGED


def test_a_walk_is_in_order_and_follows_no_link(tmp_path: Path) -> None:
    for name in ("b/2", "a/1", "c"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")

    found = [str(path.relative_to(tmp_path / "in")) for path in walk(tmp_path / "in", lambda error: pytest.fail(str(error)))]

    assert found == ["c", "a/1", "b/2"]


# Archives


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_the_members_of_an_archive_are_read_where_they_are(tmp_path: Path, method: int) -> None:
    path = an_archive(tmp_path / "a.zip", {"s/1": b"one" * 1000, "s/2": b"two", "s/": b""}, method)

    with Archive(File(path)) as archive:
        assert [(member.name, read(member)) for member in archive.members()] == [
            (f"{path}/s/1", b"one" * 1000),
            (f"{path}/s/2", b"two"),
        ]


def test_a_name_that_leads_out_of_the_archive_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = an_archive(tmp_path / "in" / "a.zip", {"../../evil": b"x", "/etc/evil": b"y"})

    with Archive(File(path)) as archive:
        assert [read(member) for member in archive.members()] == [b"x", b"y"]
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["a.zip", "in"]


def test_an_archive_that_would_grow_beyond_measure_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_UNPACKED_BYTES", 1_000_000)
    path = an_archive(tmp_path / "bomb.zip", {"bomb": bytes(5_000_000)})

    with pytest.raises(Unreadable, match="would grow to 5000000 bytes") as error:
        Archive(File(path)).__enter__()
    assert error.value.why is Why.ARCHIVE


def test_an_archive_with_too_many_members_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_MEMBERS", 3)
    path = an_archive(tmp_path / "many.zip", {str(n): b"" for n in range(4)})

    with pytest.raises(Unreadable, match="more than 3 members"):
        Archive(File(path)).__enter__()


def test_an_archive_with_a_huge_directory_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_DIRECTORY_BYTES", 66_000)
    path = an_archive(tmp_path / "many.zip", {f"{n:0200}": b"" for n in range(400)})

    with pytest.raises(Unreadable, match="damaged") as error:
        Archive(File(path)).__enter__()
    assert "too large" in str(error.value.__cause__)


def test_a_member_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    path = an_archive(tmp_path / "liar.zip", {"a": b"x" * 10_000})
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02")
    struct.pack_into("<I", content, at + 24, 100)  # the size, in the archive's directory
    path.write_bytes(content)

    with Archive(File(path)) as archive:
        [member] = archive.members()
        assert refused(member) is Why.ARCHIVE


def test_a_damaged_member_is_refused_and_the_others_are_read(tmp_path: Path) -> None:
    path = an_archive(tmp_path / "a.zip", {"a": b"first one", "b": b"second"}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"first one", b"first 0ne"))

    with Archive(File(path)) as archive:
        first, second = archive.members()
        assert refused(first) is Why.ARCHIVE
        assert read(second) == b"second"


def test_an_encrypted_member_is_refused_in_words(tmp_path: Path) -> None:
    path = an_archive(tmp_path / "a.zip", {"a": b"secret"})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)

    with Archive(File(path)) as archive:
        [member] = archive.members()
        with pytest.raises(Unreadable, match="encrypted"):
            read(member)


def test_half_an_archive_is_refused(tmp_path: Path) -> None:
    path = an_archive(tmp_path / "a.zip", {"a": b"x" * 1000})
    path.write_bytes(path.read_bytes()[:-40])

    with pytest.raises(Unreadable, match="damaged"):
        Archive(File(path)).__enter__()


def test_a_dicom_file_whose_preamble_looks_like_an_archive_is_none() -> None:
    assert not is_archive(b"PK\x03\x04" + bytes(124) + b"DICM", "IM1")


# What becomes of a file


def test_a_file_that_was_replaced_meanwhile_is_neither_moved_nor_deleted(tmp_path: Path) -> None:
    path = tmp_path / "IM1"
    path.write_bytes(b"read")
    seen = Identity.of(path.stat())
    path.write_bytes(b"written since")

    assert not delete(path, seen)
    assert not move(path, tmp_path / "done", seen)
    assert [each.name for each in tmp_path.iterdir()] == ["IM1"]
    assert path.read_bytes() == b"written since"


def test_names_are_shown_in_a_way_that_no_terminal_minds() -> None:
    assert shown(os.fsdecode(b"IM\xff\x1b[31m\n1")) == "IM\N{REPLACEMENT CHARACTER}?[31m?1"
