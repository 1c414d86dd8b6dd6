import re
from pathlib import Path

import pytest

from hilum.errors import Misconfigured
from hilum.settings import VARIABLES, Settings, doubts, entries, is_secret, load

MINIMAL = """
[dicom]
port = 1
[destinations.pacs]
type = "dicom"
host = "127.0.0.1"
[[rules]]
name = "all"
when = "true"
to = ["pacs"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "hilum.toml"
    path.write_text(MINIMAL)
    return path


def test_without_a_file_every_setting_has_its_default() -> None:
    assert load(None, {}).settings == Settings()


def test_the_environment_wins_over_the_file_and_a_flag_over_both(file: Path) -> None:
    assert load(file, {}).settings.dicom.port == 1
    assert load(file, {"HILUM_DICOM__PORT": "2"}).settings.dicom.port == 2
    assert load(file, {"HILUM_DICOM__PORT": "2"}, {"dicom.port": 3}).settings.dicom.port == 3


def test_each_value_tells_where_it_comes_from(file: Path) -> None:
    origins = load(file, {"HILUM_DICOM__AET": "CT"}, {"data": "/x"}).origins

    assert origins["dicom.port"] == str(file)
    assert origins["dicom.aet"] == "HILUM_DICOM__AET"
    assert origins["data"] == "flag"
    assert "dicom.host" not in origins


def test_a_secret_can_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("hidden\n")

    assert load(None, {"HILUM_S3__SECRET_KEY_FILE": str(tmp_path / "key")}).settings.s3.secret_key == "hidden"


def test_a_list_in_the_environment_is_json() -> None:
    assert load(None, {"HILUM_ROLES__PROCESSES": '["dicom", "publish"]'}).settings.roles.processes == ("dicom", "publish")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[dicom]\nprot = 1", r"There is no setting dicom\.prot \(set by .*\)\. Did you mean port\?"),
        ("[dicm]\nport = 1", r"There is no setting dicm \(set by .*\)\. Did you mean dicom\?"),
        ('[[rules]]\nname = "a"\nwen = "true"\nto = []', r"There is no setting rules\[a\]\.wen.*Did you mean when\?"),
        ("[senders.CT1]\nrefuze = []", r"There is no setting senders\.CT1\.refuze.*Did you mean refuse\?"),
        ("[dicom]\nport = 'x'", r'dicom\.port cannot be "x" \(set by .*\)\. Allowed: whole number from 0 to 65,535\.'),
        ('[log]\nlevel = "debug"', r'log\.level cannot be "debug" .*Did you mean DEBUG\? Allowed: "DEBUG" or "INFO" or'),
        ("[[rules]]\nwhen = 'true'\nto = []", r"rules\[#1\]\.name is missing\. Set it: text not empty\."),
        ('[roles]\nprocesses = "dicom"', r'roles\.processes cannot be "dicom" .*Allowed: list of text\.'),
        ("[senders.CT1]\nrefuse = [1, 2]", r"senders\.CT1\.refuse\[#1\] cannot be 1 .*Allowed: text\."),
        ("dicom = 5", r"dicom cannot be 5 .*Allowed: table\."),
        ("[dicom", r"is not TOML"),
        ('[[rules]]\nname = "a"\nwhen = "true"\nto = []', r"Rule 'a' sends to no destination"),
        (
            '[destinations.pacs]\ntype = "dicom"\n[[rules]]\nname = "a"\nwhen = "true"\nto = ["pcs"]',
            r"'pcs', which is no destination\. Did you mean pacs\?",
        ),
    ],
)
def test_a_wrong_setting_is_refused_in_words(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "hilum.toml"
    path.write_text(text)

    with pytest.raises(Misconfigured, match=sentence):
        load(path, {})


def test_an_environment_variable_that_names_no_setting_is_refused() -> None:
    with pytest.raises(Misconfigured, match=r"kafka\.botstrap \(set by HILUM_KAFKA__BOTSTRAP\)\. Did you mean bootstrap\?"):
        load(None, {"HILUM_KAFKA__BOTSTRAP": "x"})


def test_variables_that_mean_something_else_are_no_settings() -> None:
    assert load(None, {"HILUM_SLOT": "1", "HILUM_CACHE": "/x", "OTHER__KEY": "y"}).settings == Settings()


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("HILUM_FOO", r"Settings are written as HILUM_SECTION__KEY; others are HILUM_CONFIG, .*HILUM_SLOT"),
        ("HILUM_DICOM_PORT", r"Did you mean HILUM_DICOM__PORT\?"),
        ("HILUM_CONFG", r"Did you mean HILUM_CONFIG\?"),
    ],
)
def test_a_variable_that_means_nothing_is_refused_with_the_nearest(name: str, fix: str) -> None:
    with pytest.raises(Misconfigured, match=rf"{name} in the environment means nothing to Hilum\. {fix}"):
        load(None, {name: "1"})


def test_what_kubernetes_says_of_services_by_the_name_hilum_is_no_mistake() -> None:
    services = {
        "HILUM_SERVICE_HOST": "10.0.0.1",
        "HILUM_DICOM_SERVICE_PORT_DICOM": "11112",
        "HILUM_DICOM_PORT": "tcp://10.0.0.1:11112",
        "HILUM_DICOM_PORT_11112_TCP": "tcp://10.0.0.1:11112",
        "HILUM_DICOM_PORT_11112_TCP_ADDR": "10.0.0.1",
    }

    assert load(None, services).settings == Settings()


def test_every_variable_that_hilum_reads_is_known() -> None:
    root = Path(__file__).parents[2]
    files = [*(root / "hilum").rglob("*.py"), *(root / "ingest").rglob("*.py"), root / "dev", root / "docker-compose.yml"]
    read = {
        name
        for file in files
        for name in re.findall(r"(?:environ\.get\(|environ\[|getenv\(|envvar=|\$\{)\"?(HILUM_[A-Z]+)\b(?!__)", file.read_text("utf-8"))
    }

    assert read
    assert read <= VARIABLES.keys()


def test_all_mistakes_are_said_at_once(file: Path) -> None:
    file.write_text(MINIMAL + '[kafka]\nprot = 1\npartitions = -1\n[log]\nlevel = "debug"\n')

    with pytest.raises(Misconfigured) as stop:
        load(file, {"HILUM_FOO": "1", "HILUM_S3__SECRET_KEY_FILE": "/nowhere"})

    assert str(stop.value).startswith("There are 5 mistakes in the settings:\n- ")
    for name in ("kafka.prot", "kafka.partitions", "log.level", "HILUM_FOO", "HILUM_S3__SECRET_KEY_FILE"):
        assert f"\n- {name} " in f"{stop.value}" or f"no setting {name} " in f"{stop.value}"


def test_all_mistakes_of_rules_are_said_at_once(file: Path) -> None:
    file.write_text(MINIMAL.replace('["pacs"]', "[]") + '[[rules]]\nname = "all"\nwhen = "true"\nto = ["pcs"]\n')

    with pytest.raises(Misconfigured, match=r"(?s)3 mistakes.*2 rules have the name 'all'.*sends to no destination.*Did you mean pacs"):
        load(file, {})


def test_every_setting_is_listed_by_its_dotted_name(file: Path) -> None:
    listed = dict(entries(load(file, {}).settings))

    assert listed["dicom.port"] == 1
    assert listed["destinations.pacs.host"] == "127.0.0.1"


def test_the_configuration_version_changes_with_rules_and_destinations_only(file: Path) -> None:
    version = load(file, {}).settings.config_version

    assert load(file, {"HILUM_DICOM__PORT": "9"}).settings.config_version == version
    assert load(file, {"HILUM_DESTINATIONS__PACS__HOST": "::1"}).settings.config_version != version


@pytest.mark.parametrize("name", ["postgres.dsn", "s3.secret_key", "kafka.sasl_password", "destinations.copy.access_key"])
def test_secrets_are_known_by_their_names(name: str) -> None:
    assert is_secret(name)


def test_ordinary_settings_are_no_secrets() -> None:
    assert not any(is_secret(name) for name in ("dicom.aet", "s3.endpoint", "destinations.pacs.host"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("site.name", "Ünï"),
        ("site.name", ""),
        ("dicom.aet", "A\\B"),
        ("dicom.aet", "  "),
        ("dicom.aet", "SEVENTEEN_LETTERS"),
        ("dicom.titles", {"SEVENTEEN_LETTERS": {}}),
        ("dicom.tls_port", 11112),
        ("dicom.transfer_syntaxes", ["JPEG"]),
        ("dicom.transfer_syntaxes", ["1.2.840.10008.1.1"]),
        ("senders", {"CT\t1": {}}),
        ("senders", {" CT1": {}}),
        ("senders", {"CT1": {"called": ["A\\B"]}}),
        ("senders", {"CT1": {"max_objects_per_s": 0.001}}),
        ("peers", {"": {"host": "192.0.2.7", "port": 104}}),
        ("folders", {"cd": {"path": "/cd", "sender": "SEVENTEEN_LETTERS"}}),
        ("dicom.host", ""),
        ("dicom.max_pdu_bytes", 10),
        ("dicom.max_pdu_bytes", 2**32),
        ("dicom.max_associations", 0),
        ("dicom.idle_timeout_s", 0),
        ("dicom.idle_timeout_s", float("nan")),
        ("dicom.idle_timeout_s", float("inf")),
        ("dicom.max_object_bytes", -1),
        ("spool.min_free_bytes", -1),
        ("kafka.partitions", -1),
        ("kafka.replication", -1),
        ("kafka.prefix", "a b"),
        ("postgres.dsn", "garbage"),
        ("s3.endpoint", "127.0.0.1:9000"),
        ("s3.endpoint", "ftp://127.0.0.1"),
        ("s3.bucket", "Not_Valid"),
        ("s3.bucket", ""),
        ("probe.host", " "),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_its_name(name: str, value: object) -> None:
    with pytest.raises(Misconfigured, match=rf"^(dicom|{name})\b.*"):
        load(None, {}, {name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("site.name", "north-2"),
        ("dicom.aet", "CT ROOM 1"),
        ("dicom.host", "::"),
        ("dicom.transfer_syntaxes", ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.52", "1.2.840.113619.5.2")),
        ("dicom.max_pdu_bytes", 0),
        ("dicom.max_pdu_bytes", 4096),
        ("kafka.prefix", "north."),
        ("postgres.dsn", "postgresql://hilum:p%40ss@db.example.org:5432/hilum?sslmode=verify-full"),
        ("postgres.dsn", "host=db.example.org user=hilum password='a b'"),
        ("s3.endpoint", "https://s3.example.org/"),
        ("s3.bucket", "my.bucket-1"),
    ],
)
def test_unusual_values_that_work_are_taken(name: str, value: object) -> None:
    assert dict(entries(load(None, {}, {name: value}).settings))[name] == value


def test_a_refused_secret_is_not_repeated() -> None:
    with pytest.raises(Misconfigured) as stop:
        load(None, {"HILUM_POSTGRES__DSN": "hidden"})

    assert "hidden" not in str(stop.value)


def test_a_table_that_may_be_left_out_has_its_mistakes_named_key_by_key(tmp_path: Path) -> None:
    file = tmp_path / "hilum.toml"
    file.write_text("[senders.CT1.completeness]\nidle = 20\n")

    with pytest.raises(Misconfigured, match="Did you mean idle_s"):
        load(file, {})


def test_a_destination_without_a_rule_is_a_doubt_unless_it_takes_messages(tmp_path: Path) -> None:
    file = tmp_path / "hilum.toml"
    kinds = {"pacs": "dicom", "ris": "hl7", "steps": "mpps"}
    file.write_text("".join(f'[destinations.{name}]\ntype = "{kind}"\n' for name, kind in kinds.items()))

    said = [doubt for doubt in doubts(load(file, {}).settings) if doubt.startswith("No rule sends")]

    assert said == ["No rule sends anything to the destination pacs."]


def test_a_sender_that_is_no_destination_of_the_file_is_a_doubt(tmp_path: Path) -> None:
    file = tmp_path / "hilum.toml"
    file.write_text('[senders.OUT]\nreturns = ["pac"]\n')

    assert any("senders.OUT.returns names 'pac'" in doubt for doubt in doubts(load(file, {}).settings))
