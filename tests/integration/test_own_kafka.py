"""A Kafka of another team, with TLS, client certificates, SASL and ACLs."""

from __future__ import annotations

import json
import shlex
import subprocess
from argparse import ArgumentParser
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from confluent_kafka.admin import NewTopic

from headrace.errors import AccessDeniedError
from headrace.models.window import rfc3339
from headrace.storage.kafka_acls import needed_acls
from headrace.storage.kafka_transaction import Publisher as TransactionalPublisher
from tests.support.backbone import Backbone
from tests.support.devices import Publisher, reading
from tests.support.installation import Installation
from tests.support.own_kafka import CLIENT, USER, OwnKafka
from tests.support.processes import Process, wait_for
from tests.support.ranges import hours_ago, windows


@pytest.fixture(scope="module")
def own_kafka(running_backbone: Backbone) -> Iterator[OwnKafka]:
    kafka = OwnKafka(running_backbone.programs.kafka, running_backbone.folder / "own")
    try:
        kafka.start()
        yield kafka
    finally:
        kafka.close()


@pytest.fixture
def restricted(backbone: Backbone, own_kafka: OwnKafka, tmp_path: Path) -> Iterator[Installation]:
    """An unprovisioned installation whose Kafka user has no rights."""
    installation = Installation(backbone, tmp_path, env=own_kafka.settings("LOGIN"))
    try:
        yield installation
    finally:
        installation.close()


def provision(installation: Installation, *arguments: str) -> subprocess.CompletedProcess[str]:
    backbone = installation.backbone
    return installation.headrace(
        "provision",
        *("--wait", "0", *arguments),
        HEADRACE_INFLUX_ADMIN_TOKEN=backbone.influx_token,
        HEADRACE_INFLUX_ADMIN_PASSWORD=backbone.influx_password,
    )


def create_topics(own_kafka: OwnKafka, commands: list[str]) -> None:
    """Apply the printed commands as the administrator."""
    tool = ArgumentParser()
    for option in ("--bootstrap-server", "--topic"):
        tool.add_argument(option, required=True)
    for option in ("--partitions", "--replication-factor"):
        tool.add_argument(option, required=True, type=int)
    tool.add_argument("--create", action="store_true", required=True)
    tool.add_argument("--config", action="append", default=[])
    topics = []
    for command in commands:
        given = tool.parse_args(shlex.split(command)[1:])
        config = dict(entry.split("=", 1) for entry in given.config)
        topics.append(
            NewTopic(given.topic, given.partitions, given.replication_factor, config=config)
        )
    for future in own_kafka.admin.create_topics(topics).values():
        future.result(30)


def steps(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("kafka-")]


def test_a_restricted_user_needs_only_the_listed_acls(
    restricted: Installation, own_kafka: OwnKafka
) -> None:
    """The check lists missing topics and ACLs; exactly these are enough."""
    profile = restricted.profile
    topics = {name for _, name in profile.topics}
    refused = provision(restricted)
    assert refused.returncode == 1
    assert f"may not create topics {profile.topics.raw}" in refused.stderr
    assert "`headrace provision --check` prints the commands" in refused.stderr
    checked = provision(restricted, "--check")
    assert checked.returncode == 1, checked.stderr
    commands = steps(checked.stdout)
    created = [command for command in commands if command.startswith("kafka-topics.sh")]
    assert len(created) == len(topics)
    create_topics(own_kafka, created)

    # The workers report the missing right and continue once they have it.
    bridge, sink = restricted.worker("bridge"), restricted.worker("sink")
    bridge.launch()
    sink.launch()
    wait_for(lambda: "lacks Describe on topic" in said(bridge), 60)
    wait_for(lambda: "lacks Read on group" in said(sink), 60)
    acls = needed_acls(profile, restricted.settings.bridge_id)
    own_kafka.allow(USER, *(acl for acl in acls if acl.resource != "transactional-id"))
    for worker, port in ((bridge, restricted.bridge_port), (sink, restricted.sink_port)):
        wait_for(lambda worker=worker, port=port: goes_on(restricted, worker, port), 60)

    provisioned = provision(restricted)
    assert provisioned.returncode == 0, provisioned.stderr
    assert provisioned.stdout.count("there, made by an administrator") == len(topics)
    checked = provision(restricted, "--check")
    assert (checked.returncode, steps(checked.stdout)) == (0, []), checked.stdout + checked.stderr

    start = hours_ago(1)
    window = windows(start, 1)
    moment = int((start + timedelta(seconds=30)).timestamp() * 1000)
    with Publisher(restricted.backbone.mqtt_port, "g1") as device:
        device.send_all([(f"{restricted.name}/g1", reading("g1", time=moment, fuel=1))])
        device.send_all([(f"{restricted.name}/g1", b"not JSON")])
    wait_for(lambda: len(restricted.points("fuel")) == 1, 60)
    wait_for(lambda: len(restricted.records(profile.topics.dead_letter)) == 1, 60)
    lacking = f"lacks Write on transactional id headrace-republish-{restricted.name}"
    with pytest.raises(AccessDeniedError, match=lacking):
        restricted.compute(window)
    own_kafka.allow(USER, *acls)
    restricted.compute(window)
    assert [row["generatorID"] for row in restricted.rows()] == ["g1"]
    status = json.loads(restricted.headrace("status", "--json").stdout)
    for component in ("kafka", "bridge", "sink"):
        assert status["components"][component]["state"] == "up"
    assert bridge.stop() == sink.stop() == 0
    span = ("--from", rfc3339(start), "--to", rfc3339(start + timedelta(minutes=1)))
    for command in (("audit", *span), ("replay", "--dead-letter")):
        done = restricted.headrace(*command)
        assert "lacks" not in done.stdout + done.stderr, command
    use_other_listeners(restricted, own_kafka)


def use_other_listeners(installation: Installation, own_kafka: OwnKafka) -> None:
    """Consume and publish in a transaction, with each mechanism and with a certificate."""
    own_kafka.allow(CLIENT, *needed_acls(installation.profile, installation.settings.bridge_id))
    ways = [
        ("MUTUAL", {}),
        *(
            (listener, {"SASL_MECHANISM": mechanism})
            for listener in ("LOGIN", "CLEAR")
            for mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
        ),
    ]
    partitions = "HEADRACE_KAFKA_PARTITIONS"
    for listener, more in ways:
        for name in list(installation.environment):
            if name.startswith("HEADRACE_KAFKA_") and name != partitions:
                del installation.environment[name]
        installation.environment |= own_kafka.settings(listener, **more)
        installation.kafka.check_connection()
        assert len(installation.rows()) == 1
        with TransactionalPublisher(installation.kafka, f"headrace-republish-{installation.name}"):
            pass


def goes_on(installation: Installation, worker: Process, port: int) -> bool:
    """Whether a worker is healthy. One that has ended is started again, as its supervisor does."""
    if not worker.alive:
        worker.launch()
    return installation.healthy(port)


def said(worker: Process) -> str:
    return worker.log.read_text()
