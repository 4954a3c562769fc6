"""``headrace certificate``: TLS for devices and consumers on other machines."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from headrace.cli.app import app, start
from headrace.cli.text import shown
from headrace.errors import ConfigurationError

if TYPE_CHECKING:
    from headrace.settings import Settings

__all__: list[str] = []


@app.command()
def certificate(
    names: list[str] = typer.Argument(
        None,
        metavar="[NAME]...",
        help="Host names and IP addresses that clients use; those of the last certificate if none "
        "are given.",
    ),
    days: int = typer.Option(397, min=1, max=3650, help="Days until the certificate expires."),
    show_ca: bool = typer.Option(
        False, "--show-ca", help="Print the CA certificate, for devices and consumers, and end."
    ),
    export: Path | None = typer.Option(
        None,
        metavar="FOLDER",
        file_okay=False,
        help="Write the certificate and key in use into this folder, as mosquitto and Kafka read "
        "them, and end.",
    ),
) -> None:
    """Create or renew the certificate of the bundled broker and Kafka.

    The first call also creates a certificate authority (CA). Later calls use the same CA, so
    devices and consumers keep their `ca.crt`.
    """
    from headrace.certificates.authority import Authority, certificate_names

    settings = start()
    folder = settings.certificates_dir
    if show_ca:
        sys.stdout.write(_ca_text(folder / "ca.crt"))
        return
    if export is not None:
        _export(settings, export)
        return
    chosen = certificate_names(names or _last_names(folder / "server.crt"))
    authority = Authority(folder, datetime.now(UTC))
    expires = authority.issue(chosen, timedelta(days=days))
    console = Console()
    for line in (
        *([f"made a CA: {authority.certificate_file}"] if authority.is_new else []),
        f"made a certificate: {folder / 'server.crt'}",
        f"valid for {', '.join(chosen)}, until {expires:%Y-%m-%d}",
        "",
        *_next_steps(settings, chosen[0], authority.certificate_file, new=authority.is_new),
    ):
        console.print(shown(line), soft_wrap=True)


def _next_steps(settings: Settings, name: str, ca_file: Path, *, new: bool) -> list[str]:
    from headrace.checks.addresses import endpoints
    from headrace.outside import outside_addresses
    from headrace.profile import load_profile

    opened = outside_addresses(settings)
    topic = load_profile(settings.profile).mqtt.readings_of("DEVICE")
    port = endpoints(settings.mqtt_listen)[0][1] if settings.mqtt_listen else 8883
    steps = []
    if not opened:
        steps.append(
            f"Set HEADRACE_MQTT_LOGIN=password and HEADRACE_MQTT_LISTEN=0.0.0.0:{port} in .env"
        )
    steps.append(
        "Run `make down` and `make up` (with Docker: `docker compose up --detach "
        "--force-recreate`), so that the servers use the certificate"
    )
    if new:
        steps.append(
            f"Copy {ca_file} to each device and consumer. It is no secret; ca.key beside it is"
        )
    steps.append(
        f"Test from another machine: mosquitto_pub -h {name} -p {port} --cafile ca.crt -u DEVICE "
        f"-P PASSWORD -q 1 -t {topic} -m READING"
    )
    return ["Next:", *(f"{number}. {step}" for number, step in enumerate(steps, start=1))]


def _export(settings: Settings, folder: Path) -> None:
    from headrace.certificates.authority import write_file
    from headrace.certificates.served import server_certificate

    certificate = server_certificate(settings)
    folder.mkdir(parents=True, exist_ok=True)
    # Servers can run as other users in this group.
    for name, content in (
        ("server.crt", certificate.chain),
        ("server.key", certificate.key),
        ("server.pem", certificate.key + certificate.chain),
    ):
        write_file(folder / name, content, 0o640)
    sys.stdout.write(f"wrote the certificate of {', '.join(certificate.names)} to {folder}\n")


def _ca_text(path: Path) -> str:
    if not path.exists():
        msg = f"there is no CA in {path.parent}: `headrace certificate NAME` creates one"
        raise ConfigurationError(msg)
    return path.read_text(encoding="ascii")


def _last_names(path: Path) -> tuple[str, ...]:
    from cryptography import x509

    from headrace.certificates.authority import names_of

    try:
        return names_of(x509.load_pem_x509_certificate(path.read_bytes()))
    except FileNotFoundError:
        msg = (
            "name the host names and IP addresses that devices and consumers use, such as "
            "`headrace certificate broker.example.com 192.0.2.7`"
        )
        raise ConfigurationError(msg) from None
    except (OSError, ValueError) as exc:
        msg = f"{path} can't be read ({exc}): name the host names and IP addresses"
        raise ConfigurationError(msg) from exc
