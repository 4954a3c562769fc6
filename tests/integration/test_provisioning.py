"""Provisioning of real InfluxDB and Kafka: installations, interruptions, new tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import urllib3
from confluent_kafka.admin import AdminClient
from influxdb_client import Authorization, Permission
from influxdb_client.domain.permission_resource import PermissionResource

from headrace.errors import AccessDeniedError
from headrace.storage.influx import Influx, influx_address
from tests.support.backbone import Backbone
from tests.support.devices import Publisher, reading
from tests.support.installation import Installation
from tests.support.processes import wait_for

Install = Callable[..., Installation]


class InterruptedHereError(BaseException):
    """Stands for SIGINT: no error handler catches it."""


def tokens_of(installation: Installation) -> list[Authorization]:
    """Return the tokens in InfluxDB whose description names this installation."""
    identity = (installation.settings.state_dir / "installation").read_text().strip()
    with installation.admin_influx() as influx:
        found = influx.client.authorizations_api().find_authorizations()
    return [token for token in found if identity in (token.description or "")]


def writes(installation: Installation) -> bool:
    """Return whether InfluxDB accepts the sink's token."""
    profile = installation.profile
    line = f"{profile.measurement},{profile.id_field}=probe fuel=1.0".encode()
    with Influx(influx_address(installation.settings, "sink")) as influx:
        try:
            influx.write(profile.buckets.raw, line)
        except AccessDeniedError:
            return False
    return True


def is_whole(installation: Installation) -> bool:
    """Return whether everything is provisioned exactly once."""
    tokens = {path.name: path.read_text() for path in installation.settings.tokens_dir.iterdir()}
    made = {token.description.split()[-1]: token.token for token in tokens_of(installation)}
    with installation.admin_influx() as influx:
        buckets = influx.client.buckets_api()
        found = [buckets.find_bucket_by_name(name) for _, name in installation.profile.buckets]
    topics = set(installation.kafka.admin().list_topics(timeout=10).topics)
    return (
        writes(installation)
        and len(tokens_of(installation)) == len(made)
        and tokens == {f"{role}.token": f"{token}\n" for role, token in made.items()}
        and all(found)
        and topics >= {name for _, name in installation.profile.topics}
    )


def test_a_second_installation_keeps_the_tokens_of_the_first(install: Install) -> None:
    first = install()
    assert writes(first)
    second = install()
    assert writes(first)
    assert writes(second)
    second.provision()
    first.provision()
    assert is_whole(first)
    assert is_whole(second)


def test_data_of_another_env_file_are_reported(installation: Installation) -> None:
    """With a new .env and old data, the token belongs to another installation."""
    done = installation.headrace(
        "provision",
        HEADRACE_INFLUX_ADMIN_TOKEN="of-another-env",
        HEADRACE_INFLUX_ADMIN_PASSWORD="of-another-env",
    )
    assert done.returncode == 1
    assert "does not accept HEADRACE_INFLUX_ADMIN_TOKEN" in done.stderr
    assert "make reset" in done.stderr
    assert "of-another-env" not in done.stderr


def test_only_a_token_in_the_state_folder_is_adopted_from_an_earlier_version(
    install: Install,
) -> None:
    installation = install()
    (sink,) = (token for token in tokens_of(installation) if token.description.endswith("sink"))
    with installation.admin_influx() as influx:
        api = influx.client.authorizations_api()
        sink.description = "headrace sink"
        api.update_authorization(sink)
        bucket = influx.client.buckets_api().find_bucket_by_name(installation.profile.buckets.raw)
        resource = PermissionResource(type="buckets", id=bucket.id, org_id=sink.org_id)
        other = api.create_authorization(
            authorization=Authorization(
                org_id=sink.org_id,
                description="headrace sink",
                permissions=[Permission("write", resource)],
            )
        )
        installation.provision()
        (ours,) = (token for token in tokens_of(installation) if token.description[-4:] == "sink")
        assert ours.token == sink.token
        assert api.find_authorization_by_id(other.id).status == "active"
        api.delete_authorization(other)
    assert is_whole(installation)


def test_retention_can_be_shortened(install: Install) -> None:
    installation = install()
    for retention, seconds in (("1h", 3600), ("400d", 400 * 86400), ("30d", 30 * 86400)):
        installation.environment["HEADRACE_RAW_RETENTION"] = retention
        installation.environment["HEADRACE_HEAL_HORIZON"] = "1h"
        installation.provision()
        with installation.admin_influx() as influx:
            api = influx.client.buckets_api()
            bucket = api.find_bucket_by_name(installation.profile.buckets.raw)
        assert bucket.retention_rules[0].every_seconds == seconds


def test_a_running_sink_uses_a_replaced_token(install: Install) -> None:
    installation = install()
    sink, bridge = installation.worker("sink"), installation.worker("bridge")
    sink.start()
    bridge.start()
    topic = f"{installation.name}/g1"
    with Publisher(installation.backbone.mqtt_port, "g1") as device:
        device.send_all([(topic, reading("g1", fuel=1))])
        wait_for(lambda: len(installation.points("fuel")) == 1)
        with installation.admin_influx() as influx:
            for token in tokens_of(installation):
                influx.client.authorizations_api().delete_authorization(token)
        device.send_all([(topic, reading("g1", fuel=2))])
        wait_for(lambda: not installation.healthy(installation.sink_port))
        installation.provision()
        device.send_all([(topic, reading("g1", fuel=3))])
        wait_for(lambda: len(installation.points("fuel")) == 3)
    wait_for(lambda: installation.healthy(installation.sink_port))
    assert sink.alive


@contextmanager
def interrupted(call: int, *, answered: bool) -> Iterator[list[str]]:
    """Interrupt one call to a server, before it is sent or after it was answered.

    Yields
    ------
    list of str
        The calls that were made.
    """
    calls: list[str] = []
    patch = pytest.MonkeyPatch()

    def breaking(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def breaks(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            if len(calls) == call and not answered:
                raise InterruptedHereError
            answer = original(*args, **kwargs)
            if isinstance(answer, dict):
                for future in answer.values():
                    future.exception()
            if len(calls) == call:
                raise InterruptedHereError
            return answer

        return breaks

    pool = urllib3.HTTPConnectionPool
    patch.setattr(pool, "urlopen", breaking("urlopen", pool.urlopen))
    for name in ("list_topics", "create_topics", "list_offsets", "incremental_alter_configs"):
        patch.setattr(AdminClient, name, breaking(name, getattr(AdminClient, name)))
    try:
        yield calls
    finally:
        patch.undo()


@pytest.mark.parametrize(
    ("before", "where"),
    [
        ("nothing", "after its answer"),
        pytest.param("nothing", "before the call", marks=pytest.mark.long),
        pytest.param("lost tokens", "after its answer", marks=pytest.mark.long),
        pytest.param("lost tokens", "before the call", marks=pytest.mark.long),
    ],
)
def test_provisioning_completes_after_any_interruption(
    backbone: Backbone, tmp_path: Path, before: str, where: str
) -> None:
    """Interrupt every call once, each in a new installation."""
    interruptions = 0
    for call in range(1, 60):
        installation = Installation(backbone, tmp_path / str(call))
        if before == "lost tokens":
            installation.provision()
            for path in installation.settings.tokens_dir.iterdir():
                path.unlink()
        with interrupted(call, answered=where == "after its answer") as calls:
            try:
                installation.provision()
            except InterruptedHereError:
                interruptions += 1
            else:
                assert len(calls) < call
                break
        installation.provision()
        assert is_whole(installation)
    assert interruptions > 10
