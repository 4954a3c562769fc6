"""`headrace certificate`: a CA that is kept, certificates that clients accept, and renewals."""

from __future__ import annotations

import os
import shutil
import ssl
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from typer.testing import CliRunner

from headrace.certificates.authority import Authority
from headrace.certificates.served import certificate_state, server_certificate
from headrace.cli import app as commands
from headrace.cli import certificate as registered
from headrace.cli import login
from headrace.errors import ConfigurationError
from headrace.settings import Settings, load_settings

runner = CliRunner()
#: The commands register themselves when they are imported.
COMMANDS = (registered, login)
NOW = datetime.now(UTC)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / ".state" / "certificates"


def run(*arguments: str) -> Any:
    return runner.invoke(commands.app, ["certificate", *arguments])


def settings(**given: str) -> Settings:
    opened = {"mqtt_login": "password", "mqtt_listen": "0.0.0.0:8883"}
    return load_settings(Path(os.devnull), **opened, **given)


def issue(folder: Path, days: float, now: datetime = NOW) -> datetime:
    return Authority(folder, now).issue(["broker.example.com"], timedelta(days=days))


def connects(folder: Path, host: str, ca_file: Path | None = None) -> bool:
    """Whether a client that knows the CA accepts the certificate for a host."""
    client = ssl.create_default_context(cafile=str(ca_file or folder / "ca.crt"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server.crt", folder / "server.key")
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    outer = client.wrap_bio(to_client, to_server, server_hostname=host)
    inner = server.wrap_bio(to_server, to_client, server_side=True)
    try:
        for _ in range(4):
            for side in (outer, inner):
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    continue
    except ssl.SSLCertVerificationError:
        return False
    return outer.version() is not None


@pytest.mark.runs("cli:certificate")
def test_clients_accept_the_names_that_were_given_and_no_others(folder: Path) -> None:
    done = run("broker.example.com", "192.0.2.7", "FD00::7")
    assert done.exit_code == 0, done.output
    assert all(connects(folder, name) for name in ("broker.example.com", "192.0.2.7", "fd00::7"))
    assert not any(connects(folder, name) for name in ("example.com", "192.0.2.8", "localhost"))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"ca.crt": 0o644, "ca.key": 0o600, "server.crt": 0o644, "server.key": 0o600}
    openssl = shutil.which("openssl")
    assert openssl, "apt-get install openssl"
    strict = ["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", "ca.crt", "server.crt"]
    checked = subprocess.run([openssl, *strict], cwd=folder, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_files_have_the_same_modes_with_any_umask(folder: Path) -> None:
    before = os.umask(0o077)
    try:
        assert run("broker.example.com").exit_code == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / "ca.crt").stat().st_mode) == 0o644
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_a_renewal_keeps_the_ca_and_the_names(folder: Path) -> None:
    run("broker.example.com", "192.0.2.7", "--days", "10")
    ca = (folder / "ca.crt").read_bytes()
    first = server_certificate(settings())
    done = run()
    assert done.exit_code == 0, done.output
    assert "made a CA" not in done.output
    second = server_certificate(settings())
    assert (folder / "ca.crt").read_bytes() == ca
    assert second.names == first.names == ("broker.example.com", "192.0.2.7")
    assert second.expires - first.expires > timedelta(days=380)
    assert second.chain != first.chain
    assert connects(folder, "192.0.2.7")


def test_the_command_prints_the_next_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    first = run("broker.example.com").output
    assert "HEADRACE_MQTT_LISTEN=0.0.0.0:8883" in first
    assert "ca.crt to each device" in first
    assert "mosquitto_pub -h broker.example.com -p 8883 --cafile ca.crt" in first
    monkeypatch.setenv("HEADRACE_MQTT_LOGIN", "password")
    monkeypatch.setenv("HEADRACE_MQTT_LISTEN", "0.0.0.0:18883")
    second = run().output
    assert "HEADRACE_MQTT_LISTEN" not in second
    assert "-p 18883" in second


def test_the_ca_can_be_printed(folder: Path) -> None:
    refused = run("--show-ca")
    assert isinstance(refused.exception, ConfigurationError)
    run("broker.example.com")
    assert run("--show-ca").output == (folder / "ca.crt").read_text()


def test_servers_of_other_users_get_a_copy(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "exported"
    refused = run("--export", str(target))
    assert isinstance(refused.exception, ConfigurationError)
    run("broker.example.com")
    assert run("--export", str(target)).exit_code == 0
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in target.iterdir()}
    assert modes == dict.fromkeys(("server.crt", "server.key", "server.pem"), 0o640)
    certificate, key = ((target / f"server.{end}").read_text() for end in ("crt", "key"))
    assert (target / "server.pem").read_text() == key + certificate
    assert certificate == (folder / "server.crt").read_text()


@pytest.mark.parametrize(
    "name",
    ["", "a b", "http://x", "x:8883", "*.example.com", "0.0.0.0", "::", "1.2.3", "fe80::1%eth0"],  # noqa: S104
)
def test_names_that_no_client_can_use_are_refused(name: str, folder: Path) -> None:
    done = run("good.example.com", name)
    assert isinstance(done.exception, ConfigurationError)
    assert "can't be in a certificate" in str(done.exception)
    assert not folder.exists()


@pytest.mark.parametrize("days", ["0", "-1", "3651", "soon"])
def test_days_out_of_range_are_refused(days: str, folder: Path) -> None:
    assert run("broker.example.com", "--days", days).exit_code == 2
    assert not folder.exists()


def test_without_names_the_first_call_asks_for_them() -> None:
    done = run()
    assert isinstance(done.exception, ConfigurationError)
    assert "headrace certificate broker.example.com" in str(done.exception)


def test_no_certificate_outlives_its_ca(folder: Path) -> None:
    issue(folder, 1)
    late = NOW + timedelta(days=3640)
    expires = issue(folder, 397, now=late)
    ca = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
    assert expires == ca.not_valid_after_utc
    with pytest.raises(ConfigurationError, match=r"expires on .* copy the new ca.crt to all"):
        issue(folder, 397, now=NOW + timedelta(days=3650))


def test_a_broken_ca_is_reported_and_kept(folder: Path) -> None:
    issue(folder, 1)
    (folder / "ca.key").write_text("broken")
    with pytest.raises(ConfigurationError, match=r"the CA in .* can't be read"):
        issue(folder, 1)
    (folder / "ca.key").unlink()
    with pytest.raises(ConfigurationError, match=r"ca\.key can't be read: No such file"):
        issue(folder, 1)


def test_a_missing_certificate_is_reported_with_the_next_step() -> None:
    with pytest.raises(ConfigurationError, match=r"HEADRACE_MQTT_LISTEN requires .* NAME`"):
        server_certificate(settings())


def own(folder: Path, **changes: bytes) -> Settings:
    """Settings with a certificate of the user's own, parts of which are replaced."""
    issue(folder, 10)
    files = {}
    for name in ("cert", "key"):
        path = folder / f"own-{name}.pem"
        made = (folder / f"server.{'crt' if name == 'cert' else 'key'}").read_bytes()
        path.write_bytes(changes.get(name, made))
        files[f"server_{name}_file"] = str(path)
    return settings(**files)


def test_your_own_certificate_is_used_with_its_chain(folder: Path) -> None:
    issue(folder, 10)
    chain = b"text before\n" + (folder / "server.crt").read_bytes()
    settings = own(folder)
    chain = settings.server_cert_file.read_bytes() + (folder / "ca.crt").read_bytes()
    settings.server_cert_file.write_bytes(b"comment\n" + chain)
    certificate = server_certificate(settings)
    assert certificate.chain == chain
    assert certificate.key.startswith(b"-----BEGIN PRIVATE KEY-----")
    assert "PRIVATE KEY" not in repr(certificate)


def test_keys_in_openssl_s_older_format_work(folder: Path) -> None:
    settings = own(folder)
    key = settings.server_key_file
    old = subprocess.run(["openssl", "ec", "-in", str(key)], capture_output=True, check=True).stdout
    assert b"BEGIN EC PRIVATE KEY" in old
    key.write_bytes(old)
    assert server_certificate(settings).key.startswith(b"-----BEGIN PRIVATE KEY-----")


@pytest.mark.parametrize(
    ("part", "content", "sentence"),
    [
        ("cert", b"broken", "holds no certificate in PEM"),
        ("key", b"broken", "holds no key in PEM"),
    ],
)
def test_your_own_unusable_files_are_reported(
    part: str, content: bytes, sentence: str, folder: Path
) -> None:
    with pytest.raises(ConfigurationError, match=f"own-{part}.pem {sentence}"):
        server_certificate(own(folder, **{part: content}))


def test_a_wrong_key_and_a_key_with_a_password_are_refused(folder: Path) -> None:
    issue(folder, 1)
    other = (folder / "server.key").read_bytes()
    settings = own(folder)
    settings.server_key_file.write_bytes(other)
    with pytest.raises(ConfigurationError, match="does not belong to the first certificate"):
        server_certificate(settings)
    command = ["openssl", "pkey", "-aes256", "-passout", "pass:x"]
    locked = subprocess.run(command, input=other, capture_output=True, check=True).stdout
    settings.server_key_file.write_bytes(locked)
    with pytest.raises(ConfigurationError, match="has a password"):
        server_certificate(settings)


@pytest.mark.parametrize(
    ("days", "problem", "notice"),
    [(40, None, None), (29, None, "expires in 28 days"), (-1, "expired on", None)],
)
def test_status_reports_a_certificate_before_it_expires(
    days: int, problem: str | None, notice: str | None, folder: Path
) -> None:
    issue(folder, 60, now=NOW - timedelta(days=60 - days))
    found = certificate_state(settings(), datetime.now(UTC))
    for sentence, part in zip(found, (problem, notice), strict=True):
        assert (sentence is None) == (part is None)
        if sentence and part:
            assert part in sentence
            assert "Next: run `headrace certificate`" in sentence


def test_status_reports_a_missing_certificate_only_if_one_is_needed() -> None:
    problem, _ = certificate_state(settings(), NOW)
    assert problem
    assert "requires a certificate" in problem
    assert certificate_state(load_settings(Path(os.devnull)), NOW) == (None, None)
