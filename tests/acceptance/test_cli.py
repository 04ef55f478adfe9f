"""The `carillon` command beside `run`: what it prints, and how it ends."""

import shutil
import sqlite3
from pathlib import Path

import pytest

from tests.acceptance.conftest import Instances
from tests.acceptance.instances import Carillon

NOTHING_STORED = "nothing was stored"


@pytest.fixture
def migrated(server: Carillon, sqlite_template: Path) -> Carillon:
    """An instance whose database exists and that does not run."""
    server.data_dir.mkdir()
    shutil.copy(sqlite_template, server.data_dir / "carillon.db")
    return server


def write(directory: Path, name: str, text: str) -> str:
    file = directory / name
    file.write_text(text)
    return str(file)


def test_help_names_the_commands_and_the_exit_codes(server: Carillon) -> None:
    shown = server.command("--help").stdout

    assert all(
        name in shown for name in ("run", "api", "worker", "migrate", "import", "keys", "export-schema")
    )
    assert "3  the port cannot be listened on" in shown


def test_a_command_has_help_of_its_own(server: Carillon) -> None:
    shown = server.command("import", "users", "--help").stdout

    assert "--skip-invalid" in shown
    assert '{"userId": "anna"' in shown


def test_migrate_makes_an_admin_key_once(instances: Instances) -> None:
    server = instances(environment={"CARILLON_ADMIN_KEY": ""})
    server.data_dir.mkdir()

    first, second = server.command("migrate").stdout, server.command("migrate").stdout

    assert "Admin key (shown this once): car_" in first
    assert "Admin key" not in second


def test_migrating_down_drops_the_tables(migrated: Carillon) -> None:
    assert "-> none" in migrated.command("migrate", "--down", "base").stdout

    refused = migrated.command("keys", "list", check=False)

    assert refused.returncode == 7
    assert "Run: carillon migrate" in refused.stderr


def test_keys_are_made_listed_and_revoked(migrated: Carillon) -> None:
    secret = migrated.command("keys", "create", "Anna", "--role", "admin").stdout.strip()
    line = next(line for line in migrated.command("keys", "list").stdout.splitlines() if "Anna" in line)
    key_id = line.split()[0]

    migrated.command("keys", "revoke", key_id)

    assert secret.startswith("car_")
    assert line.split()[1] == "admin"
    revoked = next(line for line in migrated.command("keys", "list").stdout.splitlines() if "Anna" in line)
    assert revoked != line


def test_revoking_an_unknown_key_is_refused(migrated: Carillon) -> None:
    refused = migrated.command("keys", "revoke", "nobody", check=False)

    assert refused.returncode == 9
    assert "nobody" in refused.stderr
    assert "Traceback" not in refused.stderr


async def test_a_lost_key_is_replaced(migrated: Carillon) -> None:
    secret = migrated.command("keys", "create", "again", "--role", "admin").stdout.strip()
    migrated.start()

    async with migrated.client(secret) as client:
        found = await client.execute("{ viewer { name role } }")

    assert found == {"viewer": {"name": "again", "role": "ADMIN"}}


def test_users_are_imported_from_ndjson(migrated: Carillon, tmp_path: Path) -> None:
    file = write(tmp_path, "users.ndjson", '{"userId": "anna", "name": "Anna"}\n{"userId": "ben"}\n')

    assert migrated.command("import", "users", file).stdout == "2 users stored\n"


def test_a_bad_line_keeps_the_file_out(migrated: Carillon, tmp_path: Path) -> None:
    file = write(tmp_path, "users.csv", "userId,name\nanna,Anna\n,Nobody\n")

    refused = migrated.command("import", "users", file, check=False)

    assert refused.returncode == 9
    assert "line 3: " in refused.stderr
    assert NOTHING_STORED in refused.stderr


def test_bad_lines_can_be_left_out(migrated: Carillon, tmp_path: Path) -> None:
    file = write(tmp_path, "users.csv", "userId,name\nanna,Anna\n,Nobody\n")

    done = migrated.command("import", "users", file, "--skip-invalid")

    assert done.stdout == "1 user stored; 1 bad line left out\n"
    assert "line 3: " in done.stderr


def test_the_format_can_be_said(migrated: Carillon, tmp_path: Path) -> None:
    file = write(tmp_path, "users.txt", '{"userId": "anna"}\n')

    refused = migrated.command("import", "users", file, check=False)
    done = migrated.command("import", "users", file, "--format", "ndjson")

    assert refused.returncode == 9
    assert "users.txt" in refused.stderr
    assert done.stdout == "1 user stored\n"


def test_the_schema_is_printed(server: Carillon) -> None:
    assert "type Query {" in server.command("export-schema").stdout


def test_a_worker_without_a_queue_says_what_to_do(migrated: Carillon) -> None:
    refused = migrated.command("worker", check=False)

    assert refused.returncode == 8
    assert "CARILLON_REDIS_URL" in refused.stderr


def test_an_api_on_an_old_schema_says_what_to_do(server: Carillon) -> None:
    server.data_dir.mkdir()

    refused = server.command("api", check=False)

    assert refused.returncode == 7
    assert "carillon migrate" in refused.stderr


def test_a_newer_schema_is_refused(migrated: Carillon) -> None:
    with sqlite3.connect(migrated.data_dir / "carillon.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'from_the_future'")
    connection.close()

    refused = migrated.command("run", check=False)

    assert refused.returncode == 7
    assert "newer Carillon (from_the_future)" in refused.stderr
    assert migrated.processes() == {}


def test_api_and_worker_run_on_their_own(migrated: Carillon, instances: Instances) -> None:
    """As in a deployment of many machines, with the queue of a `carillon run` in place of a Valkey."""
    migrated.start()
    second = instances(database_url=migrated.database_url)
    second.environment["CARILLON_REDIS_URL"] = f"unix://{migrated.data_dir}/valkey/valkey.sock"
    second.data_dir.mkdir()
    second.launch("api")

    second.wait_until_ready()

    assert second.stop() == 0
