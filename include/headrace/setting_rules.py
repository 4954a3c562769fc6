"""Rules about combinations of settings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.checks.addresses import endpoints, is_loopback
from headrace.checks.durations import duration_text
from headrace.outside import outside_contradictions
from headrace.setting_choices import KafkaProtocol, SmtpSecurity

if TYPE_CHECKING:
    from headrace.settings import Settings

__all__ = ["contradictions", "half_a_certificate"]

_SASL = (KafkaProtocol.SASL_PLAINTEXT, KafkaProtocol.SASL_SSL)
_SSL = (KafkaProtocol.SSL, KafkaProtocol.SASL_SSL)


def contradictions(settings: Settings) -> Iterator[str]:
    """Yield one sentence for each combination of settings that can't work.

    The sentences name settings and never contain a secret.
    """
    if settings.heal_horizon > settings.raw_retention:
        yield (
            f"HEADRACE_HEAL_HORIZON: {duration_text(settings.heal_horizon)} is longer than raw "
            f"readings are kept. Write {duration_text(settings.raw_retention)} or less, or raise "
            "HEADRACE_RAW_RETENTION"
        )
    yield from _container(settings)
    yield from _kafka(settings)
    yield from _influx(settings)
    yield from _smtp(settings)
    yield from _postgres(settings)
    yield from outside_contradictions(settings)
    yield from half_a_certificate(
        "HEADRACE_SERVER", settings.server_cert_file, settings.server_key_file
    )


def half_a_certificate(name: str, cert: Path | None, key: Path | None) -> Iterator[str]:
    """Yield a sentence if only one of a certificate and its key is set.

    Parameters
    ----------
    name
        Beginning of the settings' names, such as ``HEADRACE_KAFKA``.
    cert, key
        The two files.
    """
    if (cert is None) != (key is None):
        given, missing = ("CERT", "KEY") if key is None else ("KEY", "CERT")
        yield f"{name}_{given}_FILE is set without {name}_{missing}_FILE: set both, or neither"


def _container(settings: Settings) -> Iterator[str]:
    if not settings.in_container:
        return
    hosts = {
        "mqtt_host": {settings.mqtt_host},
        "kafka_bootstrap": {host for host, _ in endpoints(settings.kafka_bootstrap)},
        "influx_host": {settings.influx_host},
        "smtp_host": {settings.smtp_host},
        "postgres_host": {settings.postgres_host},
    }
    for name in hosts.keys() & settings.model_fields_set:
        for host in filter(is_loopback, hosts[name]):
            yield (
                f"HEADRACE_{name.upper()}: inside a container, {host} is the container itself. "
                "Remove the setting from .env to use the bundled server, or write an address of "
                "your server that containers reach; host.docker.internal is this machine"
            )


def _kafka(settings: Settings) -> Iterator[str]:
    protocol = settings.kafka_protocol
    given = {
        "HEADRACE_KAFKA_USERNAME": settings.kafka_username is not None,
        "HEADRACE_KAFKA_PASSWORD": settings.kafka_password is not None,
    }
    if protocol in _SASL:
        missing = [name for name, is_set in given.items() if not is_set]
        if missing:
            yield f"HEADRACE_KAFKA_PROTOCOL is {protocol}, so set {' and '.join(missing)}"
    elif any(given.values()):
        unused = " and ".join(name for name, is_set in given.items() if is_set)
        yield (
            f"HEADRACE_KAFKA_PROTOCOL is {protocol}, which has no login: set it to SASL_SSL or "
            f"SASL_PLAINTEXT, or remove {unused}"
        )
    files = {
        "HEADRACE_KAFKA_CA_FILE": settings.kafka_ca_file,
        "HEADRACE_KAFKA_CERT_FILE": settings.kafka_cert_file,
        "HEADRACE_KAFKA_KEY_FILE": settings.kafka_key_file,
    }
    if protocol not in _SSL and any(files.values()):
        unused = " and ".join(name for name, path in files.items() if path)
        yield (
            f"HEADRACE_KAFKA_PROTOCOL is {protocol}, which has no TLS: set it to SSL or SASL_SSL, "
            f"or remove {unused}"
        )
    yield from half_a_certificate(
        "HEADRACE_KAFKA", settings.kafka_cert_file, settings.kafka_key_file
    )


def _influx(settings: Settings) -> Iterator[str]:
    if settings.influx_ca_file and not settings.influx_tls:
        yield (
            "HEADRACE_INFLUX_CA_FILE is set, but HEADRACE_INFLUX_TLS is false: set "
            "HEADRACE_INFLUX_TLS=true, or remove the file"
        )


def _smtp(settings: Settings) -> Iterator[str]:
    if settings.smtp_password is not None and settings.smtp_username is None:
        yield "HEADRACE_SMTP_PASSWORD is set without HEADRACE_SMTP_USERNAME: set both, or neither"
    if settings.smtp_username is not None and settings.smtp_password is None:
        yield "HEADRACE_SMTP_USERNAME is set without HEADRACE_SMTP_PASSWORD: set both, or neither"
    if settings.smtp_security is not SmtpSecurity.NONE:
        return
    if settings.smtp_ca_file:
        yield (
            "HEADRACE_SMTP_CA_FILE is set, but HEADRACE_SMTP_SECURITY is none: set it to starttls "
            "or tls, or remove the file"
        )
    if settings.smtp_username is not None and not is_loopback(settings.smtp_host):
        yield (
            f"HEADRACE_SMTP_SECURITY is none, so the login would reach {settings.smtp_host} in "
            "plain text: set HEADRACE_SMTP_SECURITY to starttls or tls, or remove "
            "HEADRACE_SMTP_USERNAME and HEADRACE_SMTP_PASSWORD"
        )


def _postgres(settings: Settings) -> Iterator[str]:
    if settings.postgres_ca_file and not settings.postgres_tls:
        yield (
            "HEADRACE_POSTGRES_CA_FILE is set, but HEADRACE_POSTGRES_TLS is false: set "
            "HEADRACE_POSTGRES_TLS=true, or remove the file"
        )
