"""A wrong setting is refused at start, with its name and what is allowed."""

import pytest

from tests.acceptance.conftest import Instances
from tests.acceptance.instances import Carillon


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("CARILLON_PORT", "0", "greater than or equal to 1"),
        ("CARILLON_ADMIN_KEY", "short", "at least 16 characters"),
    ],
)
def test_nothing_starts(instances: Instances, name: str, value: str, allowed: str) -> None:
    server: Carillon = instances(environment={name: value})

    refused = server.command("run", check=False)

    assert refused.returncode == 2
    assert f"{name}: " in refused.stderr
    assert allowed in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not server.data_dir.exists()


def test_every_command_tells_all_of_them_at_once(instances: Instances) -> None:
    server = instances(environment={"CARILLON_PORT": "x", "CARILLON_WORKERS": "x"})

    refused = server.command("keys", "list", check=False)

    assert refused.returncode == 2
    assert "CARILLON_PORT" in refused.stderr
    assert "CARILLON_WORKERS" in refused.stderr


def test_a_misspelt_setting_is_told_on_stderr(instances: Instances) -> None:
    server = instances(environment={"CARILLON_DOCUMENT_COST": "1", "CARILLON_WORKER": "2"})

    done = server.command("migrate")

    assert (
        "CARILLON_WORKER is set, but there is no such setting; did you mean CARILLON_WORKERS?" in done.stderr
    )
