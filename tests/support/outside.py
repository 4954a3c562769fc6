"""A device and a consumer on another machine, which use the commands of README."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from headrace.profile import Profile
from native.programs import exclusively, libraries, unpack_debian
from tests.support.installation import PROJECT
from tests.support.namespace import Namespace
from tests.support.processes import wait_for

__all__ = ["CONSUMER", "DEVICE", "HOST", "Outsider", "password_in", "readme"]

HOST = "headrace.example.com"
DEVICE, CONSUMER = "generator99", "dashboard"
#: Tries what a consumer's login must not do, and prints the
#: answers.
_TRIES = """
import sys
from concurrent.futures import ThreadPoolExecutor
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient

address, password, sinks, rows, *others = sys.argv[1:]
encrypted = {"bootstrap.servers": address, "log_level": 0, "security.protocol": "SASL_SSL",
    "ssl.ca.location": "ca.crt", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "dashboard"}
good = {**encrypted, "sasl.password": password}

def topics(config):
    errors = []
    admin = AdminClient({**config, "error_cb": errors.append})
    try:
        return " ".join(sorted(admin.list_topics(timeout=3).topics))
    except KafkaException as exc:
        admin.poll(0)
        names = [error.name() for error in (*errors, *exc.args)]
        return next(name for name in names if name != "_ALL_BROKERS_DOWN")

def read(topic, group):
    consumer = Consumer({**good, "group.id": group})
    consumer.subscribe([topic])
    record = consumer.poll(20)
    consumer.close()
    return record.error().name() if record and record.error() else str(record)

def write(topic):
    answers = []
    producer = Producer({**good, "message.timeout.ms": 10000})
    producer.produce(topic, b"forged", on_delivery=lambda error, _: answers.append(error))
    producer.flush(15)
    return answers[0].name() if answers[0] else "written"

def administer():
    admin = AdminClient(good)
    try:
        list(admin.delete_topics([rows]).values())[0].result()
    except KafkaException as exc:
        return exc.args[0].name()
    return "deleted"

if not others:
    print("topics:", topics(good))
    sys.exit()
with ThreadPoolExecutor(12) as pool:
    asked = {
        "topics": pool.submit(topics, good),
        "wrong password": pool.submit(topics, {**encrypted, "sasl.password": "wrong"}),
        "plain": pool.submit(topics, {"bootstrap.servers": address, "log_level": 0}),
        "group of the sinks": pool.submit(read, rows, sinks),
        "administer": pool.submit(administer),
        **{f"read {topic}": pool.submit(read, topic, "dashboard.other") for topic in others},
        **{f"write {topic}": pool.submit(write, topic) for topic in (rows, *others)},
    }
    for what, answer in asked.items():
        print(f"{what}: {answer.result()}")
"""
#: Publishes over secure WebSockets.
_WEBSOCKETS = """
import sys
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion
host, port, login, password, topic, payload = sys.argv[1:]
client = Client(CallbackAPIVersion.VERSION2, transport="websockets")
client.tls_set("ca.crt")
client.username_pw_set(login, password)
client.connect(host, int(port))
client.loop_start()
client.publish(topic, payload, qos=1).wait_for_publish(10)
client.disconnect()
"""


def readme(language: str) -> list[str]:
    """Return the code blocks of README's section, by language."""
    text = (PROJECT / "README.md").read_text()
    section = text.partition("## Devices and consumers on other machines\n")[2].partition("\n## ")[
        0
    ]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def password_in(shown: str, name: str) -> str:
    """Return the password of a login from the output of `headrace login`."""
    found = re.search(rf"{name}\s*\S\s*(\S+)", shown)
    assert found, shown
    return found[1]


@dataclass(frozen=True)
class Outsider:
    """The other machine.

    Parameters
    ----------
    machine
        Network of the machine.
    folder
        Folder of its ``ca.crt``.
    """

    machine: Namespace
    folder: Path

    def publish(self, command: str, password: str) -> subprocess.CompletedProcess[str]:
        """Run README's `mosquitto_pub` with this password."""
        name, *arguments = _words(command)
        assert name == "mosquitto_pub"
        arguments = [password if item == "PASSWORD" else item for item in arguments]
        client = _mosquitto_pub()
        return self.machine.run(
            client, *arguments, cwd=self.folder, env=libraries(client.parents[2])
        )

    def check_device(self, password: str, *, plain_port: int, bridge: str) -> None:
        """Publish README's reading, also over WebSockets; try forbidden actions."""
        (command,) = (block for block in readme("console") if "mosquitto_pub" in block)
        other = command.replace(f"emergency_generator/{DEVICE}", "emergency_generator/generator98")
        strangers = "/etc/ssl/certs/ca-certificates.crt"
        refused = {
            "wrong password": (command, "wrong"),
            "plain": (command.replace("--cafile ca.crt", ""), password),
            "another CA": (command.replace("ca.crt", strangers), password),
            "loopback": (command.replace("8883", str(plain_port)), password),
        }
        for what, (attempt, secret) in refused.items():
            assert self.publish(attempt, secret).returncode, what
        # MQTT 3.1.1 drops forbidden messages. The bridge's id does not give access to its session.
        self.publish(other.replace("-q 1", f"-q 1 -i {bridge}"), password)
        done = self.publish(other.replace("-q 1", "-q 1 -V 5"), password)
        assert "Not authorized" in done.stdout + done.stderr
        done = self.publish(command, password)
        assert done.returncode == 0, done.stderr
        words = _words(command)
        topic, payload = (words[words.index(option) + 1] for option in ("-t", "-m"))
        web = (_WEBSOCKETS, HOST, "8884", DEVICE, password, topic, payload)
        done = self.machine.run(sys.executable, "-c", *web, cwd=self.folder)
        assert done.returncode == 0, done.stderr

    def read_rows(self, password: str, expected: str) -> None:
        """Run README's consumer until it prints a row."""
        (script,) = readme("python")
        script = script.replace("PASSWORD", password)
        with self.machine.running(sys.executable, "-c", script, cwd=self.folder) as output:
            wait_for(lambda: expected in output.read_text())

    def check_consumer(self, password: str, profile: Profile) -> None:
        """Try actions that are forbidden for a consumer's login."""
        topics = profile.topics
        others = (topics.raw, topics.dead_letter, topics.status)
        done = self._tries(password, profile.sink_group, topics.downsampled, *others)
        answers = dict(line.split(": ", 1) for line in done.stdout.splitlines())
        assert answers == {
            "topics": f"{topics.alarms} {topics.downsampled}",
            "wrong password": "_AUTHENTICATION",
            "plain": "_TRANSPORT",
            "group of the sinks": "GROUP_AUTHORIZATION_FAILED",
            "administer": "TOPIC_AUTHORIZATION_FAILED",
            **{f"read {topic}": "TOPIC_AUTHORIZATION_FAILED" for topic in others},
            **{
                f"write {topic}": "TOPIC_AUTHORIZATION_FAILED"
                for topic in (topics.downsampled, *others)
            },
        }, done.stderr

    def check_removed(self, password: str) -> None:
        """Try a removed consumer's login."""
        assert self._tries(password, "-", "-").stdout == "topics: _AUTHENTICATION\n"

    def _tries(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        given = (f"{HOST}:9094", *arguments)
        return self.machine.run(sys.executable, "-c", _TRIES, *given, cwd=self.folder, seconds=60)


def _words(command: str) -> list[str]:
    """Return the words of a README command, which can have several lines."""
    return shlex.split(command.replace("\\\n", " ").removeprefix("$ "))


def _mosquitto_pub() -> Path:
    """Return the installed program or the one of an unpacked Debian package."""
    found = shutil.which("mosquitto_pub")
    if found:
        return Path(found)
    with exclusively():
        return unpack_debian("mosquitto-clients", "usr/bin/mosquitto_pub", print) / (
            "usr/bin/mosquitto_pub"
        )
