"""A Kafka like that of a company: TLS, three kinds of login, and rights for each user."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from headrace.storage.kafka_acls import Acl
from native import servers
from native.programs import Program
from native.servers import LOOPBACK
from tests.support.certificates import Authority
from tests.support.processes import Process, free_port

__all__ = ["CLIENT", "USER", "OwnKafka"]

USER, PASSWORD = "restricted", "p@ss word;\"'=#"
#: Kafka's name of a client with the certificate "client".
CLIENT = "CN=headrace test client"
_KINDS = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional-id": ResourceType.TRANSACTIONAL_ID,
}
_OPERATIONS = {
    "Describe": AclOperation.DESCRIBE,
    "Read": AclOperation.READ,
    "Write": AclOperation.WRITE,
    "DescribeConfigs": AclOperation.DESCRIBE_CONFIGS,
}
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"


class OwnKafka:
    """One broker with a listener for each kind of login, and an authorizer.

    Users have only the rights of their ACLs. Clients of the listener without TLS and login are
    administrators.

    Parameters
    ----------
    program
        Kafka's jars.
    folder
        Folder of its data.
    """

    def __init__(self, program: Program, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.program = folder, program
        self.authority, self.stranger = Authority(folder, "ca"), Authority(folder, "another-ca")
        self.ports = {name: free_port() for name in ("PLAINTEXT", "MUTUAL", "LOGIN", "CLEAR")}
        controller_port = free_port()
        server = servers.kafka(
            program,
            folder / "kafka",
            port=self.ports["PLAINTEXT"],
            controller_port=controller_port,
            extra=self._properties(controller_port),
        )
        self.process = Process(server, folder / "kafka.log")

    def start(self) -> None:
        """Start the broker and create the restricted user."""
        self.process.start()
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            made = UserScramCredentialUpsertion(
                USER, ScramCredentialInfo(mechanism, 4096), PASSWORD.encode()
            )
            for future in self.admin.alter_user_scram_credentials([made]).values():
                future.result(30)

    def close(self) -> None:
        self.process.kill()

    @cached_property
    def admin(self) -> AdminClient:
        """A client of the administrator, kept because pending requests end with it."""
        return AdminClient({"bootstrap.servers": self.address("PLAINTEXT")})

    def address(self, listener: str, host: str = LOOPBACK) -> str:
        return f"{host}:{self.ports[listener]}"

    def allow(self, principal: str, *acls: Acl) -> None:
        """Give rights to a user."""
        for future in self.admin.create_acls(_bindings(principal, acls)).values():
            future.result(30)

    def settings(self, listener: str, **more: str) -> dict[str, str]:
        """Return Headrace's settings for a listener."""
        ca_file = str(self.authority.ca_file)
        login = {"USERNAME": USER, "PASSWORD": PASSWORD}
        client = {
            "CERT_FILE": str(self.folder / "client.crt"),
            "KEY_FILE": str(self.folder / "client.key"),
        }
        given = {
            "MUTUAL": {"PROTOCOL": "SSL", "CA_FILE": ca_file, **client},
            "LOGIN": {"PROTOCOL": "SASL_SSL", "CA_FILE": ca_file, **login},
            "CLEAR": {"PROTOCOL": "SASL_PLAINTEXT", **login},
        }[listener]
        found = {"BOOTSTRAP": self.address(listener), **given, **more}
        return {f"HEADRACE_KAFKA_{name}": value for name, value in found.items()}

    def _properties(self, controller_port: int) -> dict[str, str]:
        certificate, key = self.authority.issue("server")
        self.authority.issue("client")
        # A PEM key store has key and certificate in one file.
        store = self.folder / "store.pem"
        store.write_bytes(key.read_bytes() + certificate.read_bytes())
        listeners = ",".join(f"{name}://{LOOPBACK}:{port}" for name, port in self.ports.items())
        plain = (
            "org.apache.kafka.common.security.plain.PlainLoginModule required "
            f"user_{USER}={_quoted(PASSWORD)};"
        )
        logins: dict[str, Any] = {
            "plain": plain,
            "scram-sha-256": _SCRAM,
            "scram-sha-512": _SCRAM,
        }
        return {
            "listeners": f"{listeners},CONTROLLER://{LOOPBACK}:{controller_port}",
            "advertised.listeners": listeners,
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,"
            "MUTUAL:SSL,LOGIN:SASL_SSL,CLEAR:SASL_PLAINTEXT",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(store),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.authority.ca_file),
            "listener.name.mutual.ssl.client.auth": "required",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            **{
                f"listener.name.{listener}.{mechanism}.sasl.jaas.config": module
                for listener in ("login", "clear")
                for mechanism, module in logins.items()
            },
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _bindings(principal: str, acls: Iterable[Acl]) -> list[AclBinding]:
    return [
        AclBinding(
            _KINDS[acl.resource],
            acl.name,
            ResourcePatternType.LITERAL,
            f"User:{principal}",
            "*",
            _OPERATIONS[acl.operation],
            AclPermissionType.ALLOW,
        )
        for acl in acls
    ]
