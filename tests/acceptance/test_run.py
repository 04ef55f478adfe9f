"""`carillon run`: one process to start and to stop, whatever happens in between."""

import os
import signal
import socket
import sys
import time

import pytest

from tests.acceptance.conftest import Instances
from tests.acceptance.instances import PATIENCE, Carillon, until

SECONDS_TO_START = 3.0
WAITS_FOR_AN_HOUR = """
from app import cli, supervisor

supervisor.SECONDS_TO_END = 3600.0
"""
TOLD_AGAIN_ONCE_IT_SAYS_THAT_IT_STOPS = """
import os, signal, types

log = supervisor.log

def info(event):
    log.info(event)
    if event == "stopping":
        os.kill(os.getpid(), signal.SIGINT)

supervisor.log = types.SimpleNamespace(info=info, warning=log.warning)
"""
STARTS = "cli.main()"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_stops_everything(server: Carillon, number: signal.Signals) -> None:
    server.start()
    assert len(server.processes()) == 5  # the supervisor, the queue, the API, a worker, a deliverer

    assert server.stop(number) == 0

    assert server.processes() == {}


@pytest.mark.parametrize("share", [0.0, 0.15, 0.3, 0.5, 0.8])
def test_it_stops_at_any_moment_of_its_start(server: Carillon, share: float) -> None:
    server.launch()
    # Not synchronisation: the moment of the signal is what is varied.
    time.sleep(share * SECONDS_TO_START)

    server.stop(signal.SIGTERM)

    assert server.processes() == {}


def _suspend_worker(server: Carillon) -> int:
    pid = server.pid_of("app.child worker")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    return pid


def test_a_second_signal_does_not_wait(server: Carillon) -> None:
    server.program = [sys.executable, "-c", WAITS_FOR_AN_HOUR + STARTS]
    server.start()
    _suspend_worker(server)
    assert server.process is not None
    server.process.send_signal(signal.SIGINT)
    until(PATIENCE, "stopping", lambda: "stopping" in server.log())

    assert server.stop(signal.SIGINT) == 0

    assert server.processes() == {}


def test_a_second_signal_is_heard_as_soon_as_the_first_is_answered(server: Carillon) -> None:
    code = WAITS_FOR_AN_HOUR + TOLD_AGAIN_ONCE_IT_SAYS_THAT_IT_STOPS + STARTS
    server.program = [sys.executable, "-c", code]
    server.start()
    _suspend_worker(server)

    assert server.stop(signal.SIGINT) == 0

    assert server.processes() == {}


def test_children_that_do_not_listen_are_killed(server: Carillon) -> None:
    """What is suspended does not end by itself, whatever it is asked."""
    server.start()
    for pid, command in server.processes().items():
        if "app.child" in command or "valkey" in command:
            os.kill(pid, signal.SIGSTOP)

    assert server.stop(signal.SIGINT) == 0

    assert server.processes() == {}


def test_nothing_survives_the_supervisor_and_it_starts_again(server: Carillon) -> None:
    server.start()

    server.kill()  # waits until nothing is left

    server.start()
    server.kill_everything()
    server.start()
    assert server.stop() == 0


def test_what_dies_is_started_again(server: Carillon) -> None:
    server.start()

    dead = {
        "valkey-server": server.kill_valkey(),
        "app.child worker": server.kill_worker(),
        "app.child deliverer": server.kill_deliverer(),
        "app.child api": server.kill_api(),
    }

    for words, pid in dead.items():
        until(PATIENCE, f"a successor of {words}", lambda: server.pid_of(words) not in (None, pid))  # noqa: B023
    server.wait_until_ready()
    assert server.stop() == 0


def test_a_sender_that_is_stuck_is_replaced(server: Carillon) -> None:
    server.start()

    stuck = _suspend_worker(server)

    until(PATIENCE, "a successor", lambda: server.pid_of("app.child worker") not in (None, stuck))
    assert "does not answer" in server.log()


async def test_the_first_start_shows_a_key_and_the_second_is_quick(instances: Instances) -> None:
    server = instances(environment={"CARILLON_ADMIN_KEY": ""})
    server.start()
    server.admin_key = until(PATIENCE, "the key", server.shown_key)
    assert await server.graphql("{ viewer { role } }") == {"viewer": {"role": "ADMIN"}}
    server.stop()
    first = server.log()

    server.start()

    until(PATIENCE, "the greeting", lambda: server.log().count("Carillon runs at") == 2)
    assert "Admin key" not in server.log()[len(first) :]
    assert "carillon keys create --role admin" in server.log()


def test_instances_run_side_by_side_each_in_its_own_directory(instances: Instances) -> None:
    one, other, intruder = instances(), instances(), instances()
    other.data_dir = other.data_dir / ("long name " * 12)
    other.environment["CARILLON_DATA_DIR"] = str(other.data_dir)
    one.start()
    other.start()
    intruder.environment["CARILLON_DATA_DIR"] = str(one.data_dir)

    refused = intruder.command("run", check=False)
    one.stop()

    assert refused.returncode == 4
    assert "is in use by another Carillon" in refused.stderr
    assert other.is_ready()
    assert other.stop() == 0


def test_a_busy_port_is_a_sentence(server: Carillon) -> None:
    with socket.create_server(("127.0.0.1", server.port)):
        refused = server.command("run", check=False)

    assert refused.returncode == 3
    assert f"Port {server.port} on 127.0.0.1 is in use" in refused.stderr
    assert f"CARILLON_PORT={server.port + 1}" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert server.processes() == {}


def test_an_unusable_data_directory_is_a_sentence(server: Carillon) -> None:
    server.data_dir.write_text("a file stands where the directory should be")

    refused = server.command("run", check=False)

    assert refused.returncode == 5
    assert "Set CARILLON_DATA_DIR" in refused.stderr


def test_an_unreachable_database_is_a_sentence(instances: Instances) -> None:
    server = instances(database_url="postgresql://somebody:secret@127.0.0.1:1/nothing")

    refused = server.command("run", check=False)

    assert refused.returncode == 6
    assert "Check that it runs and that CARILLON_DATABASE_URL is right" in refused.stderr
    assert "secret" not in refused.stderr
    assert server.processes() == {}
