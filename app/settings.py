"""Every setting of Carillon: an environment variable `CARILLON_<NAME>`, read once at start."""

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Network = IPv4Network | IPv6Network
PREFIX = "CARILLON_"


class SettingsError(Exception):
    """One or more settings are wrong; the message names each and what is allowed."""


def _database_url(url: str) -> str:
    from sqlalchemy.engine import make_url  # an eighth of a second that `carillon run` need not spend
    from sqlalchemy.exc import ArgumentError

    try:
        driver = make_url(url).drivername.partition("+")[0]
    except ArgumentError as error:
        raise ValueError(
            "not a database URL; write sqlite:///path/file.db or postgresql://user@host/name"
        ) from error
    if driver not in ("sqlite", "postgresql"):
        raise ValueError("only sqlite:///path/file.db and postgresql://user@host/name are supported")
    return url


def _redis_url(url: str) -> str:
    wrong = ValueError("write redis://host:6379/0, rediss://host:6379/0 or unix:///path/to.sock")
    try:
        parts = urlsplit(url)
        databases = parse_qs(parts.query).get("db", [])
        usable = parts.port is None or parts.port > 0
    except ValueError as error:
        raise wrong from error
    if parts.scheme == "unix":
        usable = len(parts.path) > 1
    elif parts.scheme in ("redis", "rediss"):
        databases.append(parts.path.removeprefix("/") or "0")
    else:
        usable = False
    if not usable or not all(number.isascii() and number.isdigit() for number in databases):
        raise wrong
    return url


def _origins(value: Any) -> tuple[str, ...]:
    given = value.split(",") if isinstance(value, str) else value
    origins = tuple(origin.strip().rstrip("/") for origin in given if origin.strip())
    for origin in origins:
        if origin != "*" and not origin.startswith(("http://", "https://")):
            raise ValueError("a comma-separated list of origins such as https://dashboard.example, or *")
    return origins


def _networks(value: Any) -> tuple[Network, ...]:
    given = value.split(",") if isinstance(value, str) else value
    try:
        return tuple(ip_network(network.strip()) for network in given if network.strip())
    except ValueError as error:
        raise ValueError(
            "a comma-separated list of networks such as 10.1.0.0/16, 127.0.0.1 or fd00::/8, without bits"
            " behind the prefix"
        ) from error


class Settings(BaseSettings):
    """The settings with their defaults. `load()` reads them; nothing else looks at the environment."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True)

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    data_dir: Path = Path("carillon-data")
    database_url: Annotated[str, AfterValidator(_database_url)] | None = None
    redis_url: Annotated[str, AfterValidator(_redis_url)] | None = None
    admin_key: Annotated[str, Field(min_length=16, max_length=200)] | None = None
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    batches_at_once: Annotated[int, Field(ge=1, le=8)] = 2
    messages_per_second: Annotated[int | None, Field(ge=1, le=10_000_000)] = None
    monthly_messages: Annotated[int | None, Field(ge=0)] = None
    cors_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_origins)] = ()
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"
    event_retention_days: Annotated[int, Field(ge=1, le=3650)] = 30
    explorer: bool = True
    introspection: bool = True
    deliverers: Annotated[int, Field(ge=1, le=64)] = 1
    delivery_retention_days: Annotated[int, Field(ge=1, le=3650)] = 7
    webhook_allowed_networks: Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_networks)] = ()
    webhook_allow_http: bool = False
    webhook_timeout_seconds: Annotated[float, Field(ge=1, le=60)] = 15
    webhook_connections: Annotated[int, Field(ge=1, le=1_000)] = 100

    trusted_proxies: Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_networks)] = ()
    heartbeat_seconds: Annotated[float, Field(ge=1, le=300)] = 12
    stalled_seconds: Annotated[float, Field(ge=1, le=600)] = 30
    request_timeout_seconds: Annotated[float, Field(ge=1, le=3600)] = 60
    websocket_init_seconds: Annotated[float, Field(ge=1, le=60)] = 10

    query_seconds: Annotated[float, Field(ge=0.1, le=25)] = 10
    max_header_bytes: Annotated[int, Field(ge=1_000, le=1_000_000)] = 16_000
    max_body_bytes: Annotated[int, Field(ge=1_000, le=1_000_000_000)] = 8_000_000
    max_body_bytes_without_key: Annotated[int, Field(ge=1_000, le=1_000_000_000)] = 16_000
    max_document_characters: Annotated[int, Field(ge=100, le=10_000_000)] = 100_000
    max_document_tokens: Annotated[int, Field(ge=10, le=1_000_000)] = 4_000
    max_document_aliases: Annotated[int, Field(ge=0, le=10_000)] = 30
    max_document_depth: Annotated[int, Field(ge=3, le=100)] = 16
    max_document_fields: Annotated[int, Field(ge=10, le=100_000)] = 500
    max_document_directives: Annotated[int, Field(ge=0, le=10_000)] = 50
    max_document_operations: Annotated[int, Field(ge=1, le=1_000)] = 20
    max_document_fragments: Annotated[int, Field(ge=0, le=10_000)] = 200
    max_document_comparisons: Annotated[int, Field(ge=10, le=1_000_000)] = 2_000
    max_document_variables: Annotated[int, Field(ge=1, le=10_000)] = 100
    max_document_cost: Annotated[int, Field(ge=100, le=100_000_000)] = 200_000
    max_json_depth: Annotated[int, Field(ge=5, le=500)] = 64
    max_json_values: Annotated[int, Field(ge=1_000, le=10_000_000)] = 400_000
    # Twice a call's targets; a thousand users in a hundred teams each; two calls with a thousand users or
    # channels; a hundred conditions and their groups. Each with some room.
    max_list_items: Annotated[int, Field(ge=100, le=1_000_000)] = 20_000
    max_variable_items: Annotated[int, Field(ge=100, le=10_000_000)] = 150_000
    max_input_objects: Annotated[int, Field(ge=100, le=1_000_000)] = 2_500
    max_nested_filters: Annotated[int, Field(ge=10, le=1_000_000)] = 500
    max_wrong_keys_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    max_connections_per_key: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    max_subscriptions_per_connection: Annotated[int, Field(ge=1, le=10_000)] = 100

    @cached_property
    def database(self) -> str:
        """The database's URL; by default a SQLite file in the data directory."""
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / 'carillon.db'}"

    @cached_property
    def lanes(self) -> int:
        """How many batches a worker has in hand at once. SQLite has one writer."""
        return 1 if self.database.startswith("sqlite") else self.batches_at_once

    @cached_property
    def address(self) -> str:
        """Where clients reach the API, as people type it."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"


def unknown(environment: Mapping[str, str]) -> dict[str, str | None]:
    """The variables of an environment that look like settings and are none, each with the setting whose name
    is nearest, if any is near. They are not refused: Kubernetes makes such for a service named carillon."""
    names = [PREFIX + name.upper() for name in Settings.model_fields]
    strangers = (name.upper() for name in environment if name.upper().startswith(PREFIX))
    return {
        name: next(iter(get_close_matches(name, names, n=1, cutoff=0.8)), None)
        for name in sorted(strangers)
        if name not in names
    }


def load(**given: Any) -> Settings:
    """The settings of this process; `given` (command line options) goes before the environment.

    Raises `SettingsError` with a line for each wrong value: its name, what was given, what is allowed.
    """
    try:
        return Settings(**given)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            name = PREFIX + str(problem["loc"][0]).upper() if problem["loc"] else "settings"
            message = problem["msg"].removeprefix("Value error, ")
            shown = "" if name.endswith(("_KEY", "_URL")) else f" (given: {problem['input']!r})"
            lines.append(f"{name}: {message}{shown}")
        raise SettingsError("\n".join(lines)) from error
