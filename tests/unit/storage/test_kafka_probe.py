"""Detection of the reason why a broker refuses a client, with fake listeners."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from headrace.errors import HeadraceError
from headrace.storage.kafka_probe import unanswered
from native.servers import LOOPBACK
from tests.support.certificates import Authority
from tests.support.processes import free_port

Listen = Callable[..., int]


@contextmanager
def listener(context: ssl.SSLContext | None) -> Iterator[int]:
    """A fake broker that waits for a request; without TLS it closes TLS connections."""
    with socket.create_server((LOOPBACK, 0)) as server:
        server.settimeout(10)

        def serve() -> None:
            with suppress(OSError):
                while True:
                    client, _ = server.accept()
                    client.settimeout(5)
                    with client, suppress(OSError):
                        if context is None:
                            client.recv(1)
                            continue
                        with context.wrap_socket(client, server_side=True) as protected:
                            protected.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ca")


def server_context(
    authority: Authority, *, client: bool = False, **validity: Any
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("server", **validity))
    if client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.ca_file)
    return context


def said(protocol: str, port: int, host: str = LOOPBACK, **more: Any) -> str:
    found = unanswered(
        {
            "bootstrap.servers": f"{host}:{port}",
            "security.protocol": protocol,
            **{name.replace("_", "."): str(value) for name, value in more.items()},
        }
    )
    assert found is None or isinstance(found, HeadraceError)
    return str(found)


def test_a_port_without_a_listener() -> None:
    assert "can't be reached: Connection refused" in said("SSL", free_port())


def test_a_listener_without_tls() -> None:
    with listener(None) as port:
        text = said("SASL_SSL", port)
        assert "does not speak TLS, and HEADRACE_KAFKA_PROTOCOL is SASL_SSL" in text
        assert "set it to SASL_PLAINTEXT" in text
        assert "set it to PLAINTEXT or SASL_PLAINTEXT" in said("SSL", port)
        assert said("SASL_PLAINTEXT", port) == "None"
        assert "HEADRACE_KAFKA_PROTOCOL=SASL_PLAINTEXT" in said("PLAINTEXT", port)


@pytest.mark.parametrize("client", [False, True])
def test_a_listener_with_tls_and_a_client_without(authority: Authority, *, client: bool) -> None:
    with listener(server_context(authority, client=client)) as port:
        text = said("PLAINTEXT", port)
        assert "speaks TLS, and HEADRACE_KAFKA_PROTOCOL is PLAINTEXT" in text
        assert "set it to SSL or SASL_SSL" in text
        assert text.replace("SSL or ", "").endswith("SASL_SSL")
        assert said("SASL_PLAINTEXT", port).endswith("set it to SASL_SSL")


def test_a_certificate_that_is_not_trusted(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger")
    with listener(server_context(authority)) as port:
        text = said("SSL", port, ssl_ca_location=stranger.ca_file)
        assert "not signed by a trusted CA" in text
        assert "HEADRACE_KAFKA_CA_FILE" in text
        text = said("SSL", port, "localhost", ssl_ca_location=authority.ca_file)
        assert "for another name" in text
        assert "HEADRACE_KAFKA_BOOTSTRAP" in text
        # Nothing is wrong with it; a client without a login may be what the broker refuses.
        good = {"ssl_ca_location": authority.ca_file}
        assert "HEADRACE_KAFKA_PROTOCOL=SASL_SSL" in said("SSL", port, **good)
        assert said("SASL_SSL", port, **good) == said("sasl_ssl", port, **good) == "None"


def test_a_certificate_that_has_expired(authority: Authority) -> None:
    context = server_context(authority, starts=timedelta(days=-2), ends=timedelta(days=-1))
    with listener(context) as port:
        assert "has expired" in said("SSL", port, ssl_ca_location=authority.ca_file)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_certificate_that_is_missing_or_not_trusted(
    authority: Authority, version: ssl.TLSVersion, tmp_path: Path
) -> None:
    context = server_context(authority, client=True)
    context.maximum_version = version
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other", "stranger")
    with listener(context) as port:
        trust = {"ssl_ca_location": authority.ca_file}
        text = said("SSL", port, **trust)
        assert "requires a client certificate" in text
        assert "HEADRACE_KAFKA_CERT_FILE" in text
        for issuer, found in ((stranger, "refuses the client certificate"), (authority, "SASL")):
            cert, key = issuer.issue("client")
            mine = {"ssl_certificate_location": cert, "ssl_key_location": key}
            assert found in said("SSL", port, **trust, **mine)


@pytest.mark.parametrize("address", ["kafka", "SASL_SSL://127.0.0.1:9092", "127.0.0.1", ""])
def test_an_address_that_only_librdkafka_understands(address: str) -> None:
    """A Connection of Airflow can have one."""
    assert unanswered({"bootstrap.servers": address}) is None


def test_files_that_can_not_be_used_and_settings_that_are_not_tried(
    authority: Authority, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    good = {"ssl_ca_location": authority.ca_file}
    with listener(server_context(authority)) as port:
        for given in (
            {"ssl_ca_location": empty},
            {**good, "ssl_certificate_location": empty},
            {"ssl_ca_pem": "a certificate"},
            {"enable_ssl_certificate_verification": "false"},
        ):
            assert said("SASL_SSL", port, **given) == "None"
