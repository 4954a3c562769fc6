"""Writes lines to InfluxDB and runs Flux. Errors contain the next step."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import urllib3
from influxdb_client import InfluxDBClient, Query, QueryService
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.domain.dialect import Dialect
from influxdb_client.rest import ApiException
from influxdb_client.service.health_service import HealthService

from headrace.errors import (
    AccessDeniedError,
    BadQueryError,
    ConfigurationError,
    HeadraceError,
    MissingResourceError,
    RefusedError,
    ServerTimeoutError,
    ServerUnavailableError,
)
from headrace.settings import Settings
from headrace.storage.flux_values import FluxValue, Row, extern, rows_of

__all__ = ["Influx", "InfluxAddress", "influx_address", "influx_errors"]

_CONNECT_SECONDS = 5.0
_BAD_REQUEST = 400
_UNPROCESSABLE = 422
_TOO_LARGE = 413
#: Status codes for a token that is unknown or deleted, or lacks a permission or is inactive.
_DENIED = (401, 403)


@dataclass(frozen=True)
class InfluxAddress:
    """URL, organisation and token of an InfluxDB.

    Parameters
    ----------
    url
        Such as ``http://127.0.0.1:8086``.
    org
        Organisation.
    token
        API token. It never appears in the representation.
    ca_file
        CA certificates that sign the server's certificate; the system's if `None`.
    token_file
        File of the token. If InfluxDB no longer accepts the token, the file is read again.
    """

    url: str
    org: str
    token: str
    ca_file: Path | None = None
    token_file: Path | None = None

    def __repr__(self) -> str:
        return f"InfluxAddress(url={self.url!r}, org={self.org!r})"


def influx_address(settings: Settings, role: str) -> InfluxAddress:
    """Return the address of InfluxDB from the settings, with the token of a role.

    Parameters
    ----------
    settings
        The settings.
    role
        Role of the token: the name of a file in the tokens folder, without its ending.

    Raises
    ------
    ConfigurationError
        If there is no token.
    """
    path = None
    if settings.influx_token is not None:
        token = settings.influx_token.get_secret_value()
    else:
        path = settings.tokens_dir / f"{role}.token"
        try:
            token = path.read_text(encoding="utf-8").strip()
        except OSError as exc:
            msg = (
                f"no InfluxDB token in {path}: {exc.strerror}. Run `headrace provision`, or set "
                "HEADRACE_INFLUX_TOKEN"
            )
            raise ConfigurationError(msg) from exc
    return InfluxAddress(
        settings.influx_url, settings.influx_org, token, settings.influx_ca_file, path
    )


class Influx:
    """A client of one InfluxDB.

    Thread-safe: several threads may write at once.

    Parameters
    ----------
    address
        URL, organisation and token.
    timeout
        Time limit of one call.
    connections
        Maximum number of concurrent calls.
    """

    def __init__(
        self,
        address: InfluxAddress,
        *,
        timeout: timedelta = timedelta(seconds=30),
        connections: int = 4,
    ) -> None:
        self.org = address.org
        self._token, self._token_file = address.token, address.token_file
        self._client = InfluxDBClient(
            url=address.url,
            token=address.token,
            org=address.org,
            timeout=(int(_CONNECT_SECONDS * 1000), int(timeout.total_seconds() * 1000)),
            # The caller decides whether to retry.
            retries=False,
            connection_pool_maxsize=connections,
            ssl_ca_cert=str(address.ca_file) if address.ca_file else None,
        )
        self._write_api = self._client.write_api(write_options=SYNCHRONOUS)
        self._query_service = QueryService(self._client.api_client)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @property
    def client(self) -> InfluxDBClient:
        """The client of the client library, for provisioning."""
        return self._client

    def ping(self) -> None:
        """Check that the server is up; raises `TransientError` if it is not."""
        with influx_errors(on_bad_request=RefusedError):
            # The client library can't parse an incomplete answer; reading it raises the cause.
            health = HealthService(self._client.api_client)
            response = health.get_health(_preload_content=False)
            try:
                response.read()
            finally:
                response.release_conn()

    def write(self, bucket: str, lines: bytes) -> None:
        """Write lines of line protocol, with times in nanoseconds, and wait until they are stored.

        Raises
        ------
        RefusedError
            If InfluxDB refuses some lines or all (400, 422) or the request is too large
            (413). After a 422 the good lines are stored, after a 400 none is.
        AccessDeniedError, MissingResourceError
            If the token or the bucket is wrong.
        TransientError
            If the server is unavailable, slow or busy.
        """
        with influx_errors(on_bad_request=RefusedError):
            self._call(lambda: self._write_api.write(bucket, self.org, lines))

    def delete(self, bucket: str, start: datetime, stop: datetime, measurement: str) -> None:
        """Delete the points of a measurement in ``[start, stop)``; raises as `write` does."""
        with influx_errors(on_bad_request=BadQueryError):
            self._call(
                lambda: self._client.delete_api().delete(
                    start,
                    # InfluxDB's range includes its end.
                    stop - timedelta(microseconds=1),
                    f'_measurement="{measurement}"',
                    bucket,
                    self.org,
                )
            )

    def query(
        self, flux: str, params: Mapping[str, FluxValue], *, times_as_text: bool = False
    ) -> Iterator[Row]:
        """Run Flux and iterate over the rows of its results.

        Parameters
        ----------
        flux
            The script. It reads the values from ``params``.
        params
            Values by name.
        times_as_text
            Leave times as InfluxDB writes them, to the nanosecond.

        Yields
        ------
        dict
            One row; times as aware datetimes (to the microsecond), numbers as numbers,
            and ``result`` the name of the ``yield``.

        Raises
        ------
        BadQueryError
            If InfluxDB can't compile or run the script.
        AccessDeniedError, MissingResourceError, TransientError
            As for `write`.
        """
        query = Query(
            query=flux,
            dialect=Dialect(header=True, annotations=["datatype", "default"]),
            extern=extern(params),
        )
        with influx_errors(on_bad_request=BadQueryError):
            response = self._call(
                lambda: self._query_service.post_query(
                    org=self.org, query=query, async_req=False, _preload_content=False
                )
            )
            try:
                yield from rows_of(response, times_as_text=times_as_text)
            finally:
                response.release_conn()

    def run(self, flux: str, params: Mapping[str, FluxValue]) -> list[Row]:
        """Run Flux and return all rows of its results; see `query`."""
        return list(self.query(flux, params))

    def _call(self, call: Callable[[], Any]) -> Any:
        """Call InfluxDB; if it rejects the token, read the token file and retry once."""
        used = self._token
        try:
            return call()
        except ApiException as exc:
            if exc.status not in _DENIED or not self._read_token_again(used):
                raise
        return call()

    def _read_token_again(self, used: str) -> bool:
        """Read the token file again. Returns whether the token has changed."""
        if self._token_file is not None:
            with suppress(OSError, UnicodeDecodeError):
                self._token = self._token_file.read_text(encoding="utf-8").strip() or used
            self._client.api_client.default_headers["Authorization"] = f"Token {self._token}"
        return self._token != used


@contextmanager
def influx_errors(*, on_bad_request: type[HeadraceError]) -> Iterator[None]:
    """Convert errors of influxdb-client and urllib3 to ours.

    Parameters
    ----------
    on_bad_request
        Error for a 400, 413 or 422: bad data or a bad query.
    """
    try:
        yield
    except ApiException as exc:
        raise _error_for_status(exc, on_bad_request) from exc
    except (urllib3.exceptions.HTTPError, OSError) as exc:
        # urllib3 treats a refused connection as a kind of timeout.
        if isinstance(exc, urllib3.exceptions.TimeoutError) and not isinstance(
            exc, urllib3.exceptions.NewConnectionError
        ):
            msg = f"InfluxDB did not answer in time: {exc}"
            raise ServerTimeoutError(msg) from exc
        msg = f"InfluxDB can't be reached: {exc}"
        raise ServerUnavailableError(msg) from exc


def _error_for_status(exc: ApiException, on_bad_request: type[HeadraceError]) -> HeadraceError:
    status = exc.status or 0
    # influxdb-client reports a failed TLS handshake as an answer without a status.
    if isinstance(exc.__context__, urllib3.exceptions.SSLError):
        return _tls_error(exc.__context__)
    text = f"InfluxDB answered {status}: {_message(exc)}"
    if status in (_BAD_REQUEST, _UNPROCESSABLE) and not _is_of_influxdb(exc):
        # For example a server that expects HTTPS; the readings are not the cause.
        return ConfigurationError(
            f"something other than InfluxDB's API answered {status}: {_message(exc).strip()} Are "
            "HEADRACE_INFLUX_HOST, HEADRACE_INFLUX_PORT and HEADRACE_INFLUX_TLS right?"
        )
    if status in (_BAD_REQUEST, _TOO_LARGE, _UNPROCESSABLE):
        return on_bad_request(text)
    if status in _DENIED:
        return AccessDeniedError(
            f"{text}. Is the token right? `headrace provision` makes them with "
            "HEADRACE_INFLUX_ADMIN_TOKEN, and HEADRACE_INFLUX_TOKEN takes their place"
        )
    if status == 404:  # noqa: PLR2004
        return MissingResourceError(f"{text}. `headrace provision` makes buckets")
    return ServerUnavailableError(text)


def _tls_error(exc: urllib3.exceptions.SSLError) -> HeadraceError:
    text = f"InfluxDB can't be reached by HTTPS: {exc}"
    if exc.args and isinstance(exc.args[0], ssl.SSLCertVerificationError):
        return AccessDeniedError(
            f"{text}. Is HEADRACE_INFLUX_CA_FILE the CA of its certificate, and "
            "HEADRACE_INFLUX_HOST the name in it?"
        )
    return ServerUnavailableError(
        f"{text}. Are HEADRACE_INFLUX_TLS, HEADRACE_INFLUX_PORT and HEADRACE_INFLUX_CA_FILE right?"
    )


def _message(exc: ApiException) -> str:
    try:
        return str(json.loads(exc.body or "")["message"])
    except (ValueError, KeyError, TypeError):
        body = exc.body
        return body.decode("utf-8", "replace") if isinstance(body, bytes) else body or exc.reason


def _is_of_influxdb(exc: ApiException) -> bool:
    """Return whether an error has the format of InfluxDB's errors."""
    try:
        return "code" in json.loads(exc.body or "")
    except (ValueError, TypeError):
        return False
