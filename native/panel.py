"""The table of servers that `make up` shows at the end."""

from __future__ import annotations

from headrace.checks.addresses import url_host
from headrace.profile import load_profile
from headrace.settings import BundledServer, Settings
from native.bundled import bundled_servers
from native.outside import shown_addresses
from native.servers import LOOPBACK

__all__ = ["server_rows"]


def server_rows(settings: Settings) -> list[tuple[str, str, str]]:
    """Return name, address and purpose of each server; the user's servers are marked."""
    profile = load_profile(settings.profile)
    broker = _address(settings.mqtt_host, settings.mqtt_port)
    database = _address(settings.postgres_host, settings.postgres_port)
    relay = _address(settings.smtp_host, settings.smtp_port)
    mailbox = f"http://{LOOPBACK}:{settings.mailbox_port}"
    rows = f"rows: topic {profile.topics.downsampled}"
    bucket = f"rows: bucket {profile.buckets.downsampled} of {settings.influx_org}"
    bundled = {
        BundledServer.MAILBOX: ("Mailbox", mailbox, "alerts arrive here"),
        BundledServer.MOSQUITTO: ("MQTT", broker, "devices publish here"),
        BundledServer.KAFKA: ("Kafka", settings.kafka_bootstrap, rows),
        BundledServer.INFLUXDB: ("InfluxDB", settings.influx_url, "the operator token is in .env"),
    }
    own = {
        BundledServer.MAILBOX: ("Mail", relay, f"alerts go to {settings.alert_to}"),
        BundledServer.MOSQUITTO: ("MQTT", broker, "devices publish here"),
        BundledServer.KAFKA: ("Kafka", settings.kafka_bootstrap, rows),
        BundledServer.INFLUXDB: ("InfluxDB", settings.influx_url, bucket),
        BundledServer.POSTGRES: (
            "PostgreSQL",
            database,
            f"database {settings.postgres_database}",
        ),
    }
    started = bundled_servers(settings)
    shown = []
    for server, (name, address, purpose) in own.items():
        if server not in started:
            shown.append((name, address, f"your server; {purpose}"))
        elif server in bundled:
            shown.append(bundled[server])
    return [*shown, *shown_addresses(settings)]


def _address(host: str, port: int) -> str:
    return f"{url_host(host)}:{port}"
