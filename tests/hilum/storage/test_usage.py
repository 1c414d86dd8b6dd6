from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from bench.running import SERVERS
from hilum.cli import app
from hilum.cli.storage import size
from hilum.database import connect
from hilum.sections import Retention
from hilum.settings import S3, Postgres, Settings
from hilum.storage.keeping import Facts
from hilum.storage.places import in_place
from hilum.storage.usage import EXPIRES, OLDER, Disk, Kept, full_at, spooled
from tests.conftest import Log

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def facts(**what: Any) -> Facts:
    known: dict[str, Any] = {"decisions": ("deliver",), "arrived": True, "size_bytes": 100, "received_at": NOON, "changed_at": NOON}
    return Facts(bucket="b", object_key="k", **(known | what))


def test_originals_are_summed_up_by_what_they_are_by_age_modality_and_sender(tmp_path: Path) -> None:
    kept = Kept(Settings(data=str(tmp_path), retention=Retention(originals_days=30)))

    kept.add(facts(modality="CT", senders=("CT1",)), NOON + timedelta(days=40))
    kept.add(facts(modality="CT", senders=("CT1", "CT2"), archived=True), NOON + timedelta(days=400))
    kept.add(facts(modality="MR", size_bytes=7), NOON + timedelta(hours=1))

    shown = {name: (amount.objects, amount.size_bytes) for name, amount in kept.by_reason.items() if amount.objects}
    assert shown == {EXPIRES: (1, 100), "archived": (1, 100), "too-early": (1, 7)}
    assert {name: amount.objects for name, amount in kept.by_age.items() if amount.objects} == {
        "up to a day": 1,
        "up to 90 days": 1,
        OLDER: 1,
    }
    assert {name: amount.size_bytes for name, amount in kept.by_modality.items()} == {"CT": 200, "MR": 7}
    assert {name: amount.objects for name, amount in kept.by_sender.items()} == {"CT1": 1, "CT1/CT2": 1, "": 1}
    assert {name: amount.objects for name, amount in kept.by_term.items()} == {"originals_days = 30": 1}


@pytest.mark.parametrize(("growth_bytes", "days"), [(100, 10), (1000, 1), (0, None), (-5, None), (1, 1000)])
def test_a_disk_is_full_when_what_comes_a_day_has_taken_its_free_space(growth_bytes: int, days: int | None) -> None:
    disk = Disk(path="/srv", holds=("spool", "object store"), size_bytes=2000, free_bytes=1000)

    assert full_at([disk], growth_bytes, NOON) == (NOON + timedelta(days=days) if days else None)


def test_of_a_store_that_is_elsewhere_it_is_not_known_when_it_is_full() -> None:
    assert full_at([Disk(path="/srv", holds=("spool",), size_bytes=2000, free_bytes=1000)], 100, NOON) is None


def test_what_waits_in_the_spool_is_counted(tmp_path: Path) -> None:
    (tmp_path / "spool" / "objects").mkdir(parents=True)
    (tmp_path / "spool" / "objects" / "r1.dcm").write_bytes(b"12345")

    found = spooled(Settings(data=str(tmp_path)))

    assert (found.objects, found.size_bytes) == (1, 5)


def test_archives_in_place_are_known_by_their_settings_alone_or_in_a_group() -> None:
    tables: dict[str, dict[str, Any]] = {
        "here": {"type": "archive"},
        "named": {"type": "archive", "bucket": "hilum-originals"},
        "copies": {"type": "archive", "bucket": "copies"},
        "elsewhere": {
            "type": "archive",
            "bucket": "hilum-originals",
            "endpoint": "https://s3.example",
            "access_key": "a",
            "secret_key": "b",
        },
        "pacs": {"type": "dicom"},
        "either": {"type": "group", "members": ["pacs", "here"]},
        "others": {"type": "group", "members": ["pacs", "copies"]},
    }

    assert in_place(Settings(destinations=tables)) == {"here", "named", "either"}


def test_sizes_are_read_in_powers_of_a_thousand() -> None:
    assert [size(each) for each in (0, 999, 1_500, 2_000_000, 3_400_000_000)] == ["0 B", "999 B", "1.5 kB", "2.0 MB", "3.4 GB"]


@pytest.mark.system
def test_the_commands_say_what_is_kept_and_what_would_expire(postgres: str, log: Log, tmp_path: Path) -> None:
    log.make()
    with connect(postgres) as connection:
        for n, state, days in ((1, "delivered", 40), (2, "delivered", 2), (3, "pending", 40)):
            at = datetime.now(UTC) - timedelta(days=days)
            connection.execute(
                "INSERT INTO receipt (receipt, study_instance_uid, sop_instance_uid, bucket, object_key, size_bytes, sha256, calling_aet,"
                " received_at, received, accepted_at, decision, decided_at, delivery_ids)"
                " VALUES (%s, '2.2', %s, 'hilum-originals', %s, 1000, 'x', 'CT1', %s, true, %s, 'deliver', %s, %s)",
                (f"r{n}", f"2.4.{n}", f"k{n}", at, at, at, [f"d{n}"]),
            )
            connection.execute(
                "INSERT INTO delivery (delivery_id, destination, receipt, study_instance_uid, sop_instance_uid, bucket, object_key, state,"
                " settled_at) VALUES (%s, 'pacs', %s, '2.2', %s, 'hilum-originals', %s, %s, %s)",
                (f"d{n}", f"r{n}", f"2.4.{n}", f"k{n}", state, None if state == "pending" else at),
            )
    config = tmp_path / "hilum.toml"
    nowhere = S3(endpoint="http://127.0.0.1:1", access_key="a", secret_key="b")
    servers = SERVERS.format(kafka=log.settings.kafka, postgres=Postgres(dsn=postgres), s3=nowhere)
    config.write_text(f'data = "{tmp_path}"\n{servers}\n[retention]\noriginals_days = 30\n')

    def asked(*words: str) -> Any:
        result = CliRunner().invoke(app, ["storage", *words, "--config", str(config), "--json"])
        assert result.exit_code == 0, result.output
        return msgspec.json.decode(result.stdout)

    retention = asked("retention", "--dry-run")
    assert retention["terms"]["originals_days"] == 30
    assert retention["expires"] == {"originals_days = 30": {"objects": 1, "size_bytes": 1000}}
    assert {reason: amount["objects"] for reason, amount in retention["kept"].items() if amount["objects"]} == {"too-early": 1, "open": 1}
    assert "has not looked yet" in retention["waits"]
    usage = asked("usage")
    assert usage["by_sender"]["CT1"] == {"objects": 3, "size_bytes": 3000}
    assert usage["per_day"] == {"objects": 0, "size_bytes": 500}
    assert usage["expired"]["objects"] == 0
    shown = CliRunner().invoke(app, ["storage", "retention", "--config", str(config)])
    assert "retention.originals_days\t30 days" in shown.output
    assert "deliveries pending or waiting for a person\t1\t1.0 kB" in shown.output
