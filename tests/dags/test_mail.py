"""Mails of a failing stage through a relay that requires TLS and a login."""

from __future__ import annotations

import gc
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from headrace.orchestration import alerts
from headrace.settings import load_settings
from native.airflow import airflow_environment
from native.servers import LOOPBACK
from tests.support.certificates import Authority
from tests.support.processes import free_port

pytestmark = [
    # aiosmtpd does not treat a connection that begins with TLS as protected.
    pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS"),
    # Airflow's hook and aiosmtpd leave a refused connection to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

USER, PASSWORD = "mailer", "p@ss: word\"'\\#"


class Relay:
    """A mail server that accepts mails only after a login over TLS."""

    def __init__(self, folder: Path, security: str) -> None:
        self.authority, self.stranger = Authority(folder, "ca"), Authority(folder, "stranger")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.authority.issue("relay"))
        self.mails: list[Envelope] = []
        tls: dict[str, Any] = (
            {"ssl_context": context, "auth_require_tls": False}
            if security == "tls"
            else {"tls_context": context, "require_starttls": True}
        )
        self.controller = Controller(
            self,
            LOOPBACK,
            free_port(),
            auth_required=True,
            authenticator=self._known,
            **tls,
        )

    def _known(self, *args: Any) -> AuthResult:
        data = args[-1]
        assert isinstance(data, LoginPassword)
        given = data.login.decode(), data.password.decode()
        return AuthResult(success=given == (USER, PASSWORD), handled=False)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        del server
        assert session.authenticated
        self.mails.append(envelope)
        return "250 OK"


@pytest.fixture(params=["starttls", "tls"])
def relay(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Relay]:
    relay = Relay(tmp_path, request.param)
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "AIRFLOW_PASSWORD": "a-password",
        "AIRFLOW_JWT_SECRET": "a-secret" * 8,
        "AIRFLOW_FERNET_KEY": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
        "POSTGRES_PASSWORD": "a-password",
        "SMTP_PORT": str(relay.controller.port),
        "SMTP_SECURITY": request.param,
        "SMTP_USERNAME": USER,
        "SMTP_PASSWORD": PASSWORD,
        "SMTP_CA_FILE": str(relay.authority.ca_file),
    }.items():
        monkeypatch.setenv(f"HEADRACE_{name}", value)
    relay.controller.start()
    try:
        yield relay
    finally:
        relay.controller.stop()
        gc.collect()


def send(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = airflow_environment(load_settings(), folder / "airflow")
    name = "AIRFLOW_CONN_SMTP_DEFAULT"
    assert json.loads(environment[name])["login"] == USER
    monkeypatch.setenv(name, environment[name])
    ti = SimpleNamespace(
        dag_id="dag", task_id="task", run_id="run", try_number=1, max_tries=0, log_url="http://x"
    )
    alerts._send({"ti": ti}, "A subject", "A sentence.", {})


def test_a_relay_with_tls_and_a_login_gets_the_mail(
    relay: Relay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(tmp_path, monkeypatch)
    (mail,) = relay.mails
    assert mail.rcpt_tos == ["operators@headrace.local"]
    assert b"A subject" in mail.content


@pytest.mark.parametrize("wrong", ["password", "CA", "host name"])
def test_a_wrong_relay_receives_no_mail_and_no_password(
    relay: Relay, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {
        "password": ("SMTP_PASSWORD", "of-another-account"),
        "CA": ("SMTP_CA_FILE", str(relay.stranger.ca_file)),
        "host name": ("SMTP_HOST", "localhost"),
    }
    name, value = changes[wrong]
    monkeypatch.setenv(f"HEADRACE_{name}", value)
    with pytest.raises(Exception, match=r"535|CERTIFICATE_VERIFY_FAILED") as refused:
        send(tmp_path, monkeypatch)
    assert "of-another-account" not in str(refused.value)
    assert not relay.mails
