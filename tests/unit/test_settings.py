"""Settings: what stands in the environment, and what is refused."""

from pathlib import Path

import pytest

from app.queue import redis_settings
from app.settings import SettingsError, load, unknown


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("CARILLON_"):
            monkeypatch.delenv(name)


def test_everything_has_a_default() -> None:
    settings = load()

    assert settings.address == "http://127.0.0.1:8000"
    assert settings.database == f"sqlite:///{Path('carillon-data').resolve()}/carillon.db"
    assert settings.redis_url is None
    assert settings.cors_origins == ()


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARILLON_PORT", "8123")
    monkeypatch.setenv("CARILLON_CORS_ORIGINS", "https://a.example/, http://localhost:3000")
    monkeypatch.setenv("CARILLON_MESSAGES_PER_SECOND", "")

    settings = load()

    assert settings.port == 8123
    assert settings.cors_origins == ("https://a.example", "http://localhost:3000")
    assert settings.messages_per_second is None


def test_networks_are_comma_separated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARILLON_WEBHOOK_ALLOWED_NETWORKS", "10.1.0.0/16, fd00::/8,127.0.0.1,")
    assert [str(each) for each in load().webhook_allowed_networks] == [
        "10.1.0.0/16",
        "fd00::/8",
        "127.0.0.1/32",
    ]
    monkeypatch.setenv("CARILLON_WEBHOOK_ALLOWED_NETWORKS", "10.1.0.0/8")
    with pytest.raises(SettingsError, match="CARILLON_WEBHOOK_ALLOWED_NETWORKS: a comma-separated list"):
        load()


def test_what_is_given_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARILLON_PORT", "8123")

    assert load(port=9000).port == 9000


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::1", "http://[::1]:8000"),
        ("a.example", "http://a.example:8000"),
    ],
)
def test_the_address_is_what_people_type(host: str, address: str) -> None:
    assert load(host=host).address == address


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().port = 1


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("port", "http", "valid integer"),
        ("workers", 65, "less than or equal to 64"),
        ("database_url", "mysql://host/name", "sqlite:///path/file.db and postgresql://"),
        ("database_url", "nothing", "not a database URL"),
        ("redis_url", "localhost:6379", "redis://host:6379/0"),
        ("redis_url", "redis://host:6379/x", "redis://host:6379/0"),
        ("redis_url", "redis://host:6379/0/1", "redis://host:6379/0"),
        ("redis_url", "redis://host:70000/0", "redis://host:6379/0"),
        ("redis_url", "redis://host?db=first", "redis://host:6379/0"),
        ("redis_url", "unix://", "unix:///path/to.sock"),
        ("log_level", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("cors_origins", "dashboard.example", "https://dashboard.example"),
    ],
)
def test_a_wrong_value_is_told_what_is_allowed(name: str, value: object, allowed: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load(**{name: value})

    assert f"CARILLON_{name.upper()}: " in str(refused.value)
    assert allowed in str(refused.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://queue", {"host": "queue", "port": 6379, "database": 0, "ssl": False}),
        ("redis://queue:7000/", {"host": "queue", "port": 7000, "database": 0}),
        ("redis://queue:7000/3", {"port": 7000, "database": 3}),
        ("redis://queue?db=3", {"database": 3}),
        ("redis://ann:p%40ss@queue", {"username": "ann", "password": "p@ss"}),
        ("rediss://queue?ssl_cert_reqs=none", {"ssl": True, "ssl_cert_reqs": "none"}),
        ("unix:///run/valkey.sock", {"unix_socket_path": "/run/valkey.sock", "database": 0}),
        ("unix:///run/valkey.sock?db=2", {"unix_socket_path": "/run/valkey.sock", "database": 2}),
    ],
)
def test_a_queue_is_named_as_usual(url: str, expected: dict[str, object]) -> None:
    assert load(redis_url=url).redis_url == url
    found = redis_settings(url)
    assert {name: getattr(found, name) for name in expected} == expected


def test_wrong_values_are_named_all_at_once() -> None:
    with pytest.raises(SettingsError) as refused:
        load(port=0, workers=100)

    assert "CARILLON_PORT: " in str(refused.value)
    assert "CARILLON_WORKERS: " in str(refused.value)
    assert "given: 100" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("admin_key", "secret"), ("database_url", "mysql://u:secret@h/d"), ("redis_url", "secret")],
)
def test_secrets_are_not_repeated(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load(**{name: value})

    assert "secret" not in str(refused.value)


def test_misspelt_settings_are_found_with_what_was_meant() -> None:
    environment = {
        "CARILLON_WORKER": "2",
        "carillon_max_document_alias": "1",
        "CARILLON_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "CARILLON_PORT": "8000",
        "CARILLONS": "",
        "PATH": "",
    }
    assert unknown(environment) == {
        "CARILLON_MAX_DOCUMENT_ALIAS": "CARILLON_MAX_DOCUMENT_ALIASES",
        "CARILLON_PORT_8000_TCP": None,
        "CARILLON_WORKER": "CARILLON_WORKERS",
    }
