"""A PostgreSQL elsewhere, with TLS and special characters in names and password."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg2
import pytest
from psycopg2 import sql
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from headrace.settings import BundledServer, load_settings
from native import servers
from native.airflow import airflow_environment
from native.postgres import postgres
from native.servers import LOOPBACK
from native.stack import find_programs
from tests.support.backbone import make_folder
from tests.support.certificates import Authority
from tests.support.processes import Process, free_port

USER, DATABASE, PASSWORD = "air flow/@", "meta?data#%", "p@ss:/?#%25 [$HOME]\"'\\&="


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    folder = make_folder()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def own(folder: Path) -> Iterator[dict[str, str]]:
    """Settings of a database with another owner, which requires TLS."""
    authority = Authority(folder, "ca")
    Authority(folder, "stranger")
    cert, key = authority.issue("postgres")
    user = servers.service_user()
    if user:
        shutil.chown(key, user, user)
    key.chmod(0o600)
    port = free_port()
    program = find_programs(print, [BundledServer.POSTGRES]).postgres
    server = postgres(program, folder / "postgres", port=port, password="of-the-administrator")
    access = folder / "postgres" / "data" / "pg_hba.conf"
    access.write_text("hostssl all all all scram-sha-256\n")
    options = {"ssl": "on", "ssl_cert_file": str(cert), "ssl_key_file": str(key)}
    more = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    process = Process(
        dataclasses.replace(server, command=(*server.command, *more)), folder / "postgres.log"
    )
    process.start()
    try:
        admin = psycopg2.connect(
            host=LOOPBACK,
            port=port,
            user="airflow",
            password="of-the-administrator",
            dbname="postgres",
            sslmode="require",
        )
        admin.autocommit = True
        with admin.cursor() as cursor:
            owner, database = sql.Identifier(USER), sql.Identifier(DATABASE)
            cursor.execute(sql.SQL("CREATE USER {} PASSWORD %s").format(owner), [PASSWORD])
            cursor.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(database, owner))
        admin.close()
        yield {
            "postgres_port": str(port),
            "postgres_user": USER,
            "postgres_database": DATABASE,
            "postgres_password": PASSWORD,
            "postgres_tls": "true",
            "postgres_ca_file": str(authority.ca_file),
            "airflow_password": "a-password",
            "airflow_jwt_secret": "a-secret" * 8,
            "airflow_fernet_key": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
        }
    finally:
        process.kill()


def db_check(own: Mapping[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Let Airflow check its database."""
    environment = airflow_environment(load_settings(Path(os.devnull), **own), folder / "airflow")
    return subprocess.run(
        [str(Path(sys.executable).parent / "airflow"), "db", "check"],
        env={**os.environ, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_airflow_reaches_the_database_with_both_of_its_drivers(
    own: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = db_check(own, folder)
    assert done.returncode == 0, done.stderr
    environment = airflow_environment(load_settings(Path(os.devnull), **own), folder / "airflow")
    for name in ("PGSSLMODE", "PGSSLROOTCERT"):
        monkeypatch.setenv(name, environment[name])
    # Airflow derives the URL of its second driver like this.
    url = environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("psycopg2", "asyncpg")

    async def encrypted() -> object:
        engine = create_async_engine(url)
        try:
            async with engine.connect() as connection:
                query = text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
                return (await connection.execute(query)).scalar_one()
        finally:
            await engine.dispose()

    assert asyncio.run(encrypted()) is True


@pytest.mark.long
@pytest.mark.parametrize("wrong", ["CA", "host name", "password"])
def test_a_wrong_database_is_refused(own: dict[str, str], folder: Path, wrong: str) -> None:
    changes, said = {
        "CA": ({"postgres_ca_file": str(folder / "stranger.pem")}, "certificate verify failed"),
        "host name": ({"postgres_host": "localhost"}, "does not match host name"),
        "password": ({"postgres_password": "of-another-user"}, "password authentication failed"),
    }[wrong]
    done = db_check({**own, **changes}, folder)
    assert done.returncode != 0
    assert said in done.stderr
    assert "of-another-user" not in done.stdout + done.stderr
