"""A Kafka with an administrator of its own: TLS, client certificates, SASL, and rights by ACL."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from confluent_kafka.admin import NewTopic

from headrace.models.window import rfc3339
from headrace.storage.kafka_acls import needed_acls
from headrace.storage.kafka_topic_configs import topic_configs
from tests.support.backbone import Backbone
from tests.support.devices import Publisher, reading
from tests.support.installation import Installation
from tests.support.own_kafka import USER, OwnKafka
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
    """An installation whose Kafka user has no rights, and that is not provisioned."""
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


def run_tool(own_kafka: OwnKafka, command: str) -> None:
    """Run a printed command as the administrator does: by the listener without TLS and login."""
    tools = {
        "kafka-topics.sh": "org.apache.kafka.tools.TopicCommand",
        "kafka-configs.sh": "kafka.admin.ConfigCommand",
        "kafka-acls.sh": "kafka.admin.AclCommand",
    }
    tool, option, _, *rest = shlex.split(command)
    assert option == "--bootstrap-server"
    jars = f"{own_kafka.program.path}/*"
    done = subprocess.run(
        ["java", "-cp", jars, tools[tool], option, own_kafka.address("PLAINTEXT"), *rest],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def make_topics(own_kafka: OwnKafka, installation: Installation) -> None:
    settings = installation.settings
    topics = [
        NewTopic(name, settings.kafka_partitions, settings.kafka_replication, config=config)
        for name, config in topic_configs(installation.profile, settings).items()
    ]
    for future in own_kafka.admin.create_topics(topics).values():
        future.result(30)


def kafka_state(installation: Installation, port: int) -> str:
    return str(installation.health(port).get("conditions", {}).get("kafka", {}).get("state", ""))


def steps(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("kafka-")]


def test_a_user_who_may_not_administer(restricted: Installation, own_kafka: OwnKafka) -> None:
    """Told what is missing, from topics to ACLs; with exactly the listed ACLs all works."""
    profile = restricted.profile
    topics = {name for _, name in profile.topics}
    refused = provision(restricted)
    assert refused.returncode == 1
    assert f"may not create topics {profile.topics.raw}" in refused.stderr
    assert "`headrace provision --check` prints the commands" in refused.stderr
    checked = provision(restricted, "--check")
    assert checked.returncode == 1, checked.stderr
    commands = steps(checked.stdout)
    assert {shlex.split(command)[5] for command in commands if "--create" in command} == topics
    # One by the tool, so that the command is known to be right; the others are quicker so.
    raw = next(line for line in commands if f"--create --topic {profile.topics.raw} " in line)
    run_tool(own_kafka, raw)
    rest = {name for name in topics if name != profile.topics.raw}
    configs = topic_configs(profile, restricted.settings)
    made = own_kafka.admin.create_topics(
        [NewTopic(name, 3, 1, config=configs[name]) for name in sorted(rest)]
    )
    for future in made.values():
        future.result(30)

    # The workers say which right they lack, and go on as soon as they have it.
    bridge, sink = restricted.worker("bridge"), restricted.worker("sink")
    bridge.launch()
    sink.launch()
    wait_for(lambda: "lacks Describe on topic" in said(bridge), 60)
    wait_for(lambda: "lacks Read on group" in said(sink), 60)
    acls = needed_acls(profile, restricted.settings.bridge_id)
    own_kafka.allow(USER, *acls)
    wait_for(lambda: restricted.healthy(restricted.bridge_port), 60)
    wait_for(lambda: restricted.healthy(restricted.sink_port), 60)

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
    restricted.compute(window)
    assert [row["generatorID"] for row in restricted.rows()] == ["g1"]
    assert bridge.stop() == sink.stop() == 0
    span = ("--from", rfc3339(start), "--to", rfc3339(start + timedelta(minutes=1)))
    for command in (("audit", *span), ("replay", "--dead-letter")):
        done = restricted.headrace(*command)
        assert "lacks" not in done.stdout + done.stderr, command


def said(worker: Process) -> str:
    return worker.log.read_text()
