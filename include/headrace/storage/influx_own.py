"""Provisions an InfluxDB elsewhere, with one token and possibly existing buckets.

It needs no operator token. An empty query and an empty write show whether the token may read and
write a bucket, because a token with few rights can't query its own rights.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import timedelta

from influxdb_client.rest import ApiException

from headrace.checks.durations import duration_text
from headrace.errors import (
    AccessDeniedError,
    ConfigurationError,
    MissingResourceError,
    RefusedError,
)
from headrace.profile import Profile
from headrace.settings import Settings
from headrace.storage.findings import Finding
from headrace.storage.influx import Influx, InfluxAddress, influx_errors
from headrace.storage.influx_buckets import bucket_retentions, create_bucket

__all__ = ["check_own_influx", "provision_own_influx"]

_MISSING = "missing"
_UNAUTHORIZED = 401
_READS = "from(bucket: params.bucket) |> range(start: -1s) |> limit(n: 1)"


def provision_own_influx(settings: Settings, profile: Profile) -> dict[str, str]:
    """Create missing buckets if `HEADRACE_INFLUX_TOKEN` may do so; accept fitting ones.

    Returns
    -------
    dict
        Performed changes by name.

    Raises
    ------
    AccessDeniedError
        If InfluxDB does not accept the token.
    MissingResourceError
        If a bucket or a right is missing and the token may not create it.
    TransientError
        If InfluxDB can't be reached.
    """
    done = {}
    with Influx(_address(settings)) as influx:
        for name, retention in bucket_retentions(profile, settings).items():
            found = list(_bucket_findings(influx, name, retention, settings))
            missing = any(finding.state == _MISSING for finding in found)
            if missing and _create(influx, name, retention):
                done[f"bucket {name}"] = "made"
                continue
            if found:
                problems = ", ".join(finding.state for finding in found)
                msg = (
                    f"InfluxDB's bucket {name}: {problems}. `headrace provision --check` says what "
                    "an administrator must do"
                )
                raise MissingResourceError(msg)
            done[f"bucket {name}"] = "there"
    return done


def check_own_influx(settings: Settings, profile: Profile) -> list[Finding]:
    """Compare the buckets and the rights of `HEADRACE_INFLUX_TOKEN` with the requirements.

    It changes nothing.

    Raises
    ------
    AccessDeniedError
        If InfluxDB does not accept the token.
    TransientError
        If InfluxDB can't be reached.
    """
    findings: list[Finding] = []
    with Influx(_address(settings)) as influx:
        for name, retention in bucket_retentions(profile, settings).items():
            found = list(_bucket_findings(influx, name, retention, settings))
            findings += found or [Finding(f"bucket {name}")]
    return findings


def _address(settings: Settings) -> InfluxAddress:
    if settings.influx_token is None:
        msg = "HEADRACE_INFLUX_TOKEN is not set"
        raise ConfigurationError(msg)
    return InfluxAddress(
        settings.influx_url,
        settings.influx_org,
        settings.influx_token.get_secret_value(),
        settings.influx_ca_file,
    )


def _bucket_findings(
    influx: Influx, name: str, retention: timedelta, settings: Settings
) -> Iterator[Finding]:
    """Yield the problems of a bucket and of the token's rights on it."""
    what = f"bucket {name}"
    if not _exists(influx, name, settings):
        yield Finding(what, _MISSING, _create_command(name, retention, settings))
        return
    step = "have the owner of the token add it, or make a token: influx auth create --org {} {}"
    for right, allowed in (("write", _may_write), ("read", _may_read)):
        if not allowed(influx, name):
            flags = f"--{right}-bucket ID"
            yield Finding(
                what,
                f"the token may not {right} it",
                step.format(shlex.quote(settings.influx_org), flags),
            )
    kept = _retention(influx, name)
    if kept and (not retention or kept < retention):
        wanted = duration_text(retention) if retention else "without limit"
        seconds = int(retention.total_seconds())
        yield Finding(
            what,
            f"kept for {duration_text(kept)} instead of {wanted}",
            f"influx bucket update --id ID --retention {seconds}s",
        )


def _exists(influx: Influx, name: str, settings: Settings) -> bool:
    try:
        _write_nothing(influx, name)
    except MissingResourceError as exc:
        if "organization" in str(exc):
            msg = f"InfluxDB has no organisation {settings.influx_org}: set HEADRACE_INFLUX_ORG"
            raise ConfigurationError(msg) from exc
        return False
    except AccessDeniedError:
        return True
    return True


def _may_write(influx: Influx, name: str) -> bool:
    try:
        _write_nothing(influx, name)
    except AccessDeniedError:
        return False
    return True


def _write_nothing(influx: Influx, name: str) -> None:
    """Write no lines, which changes nothing and needs the right to write.

    Raises
    ------
    AccessDeniedError
        If the token may not write the bucket.
    MissingResourceError
        If the organisation or the bucket does not exist.
    ConfigurationError
        If InfluxDB does not know the token.
    """
    try:
        influx.write(name, b"")
    except RefusedError:
        # Some versions require at least one line, but check the rights first.
        return
    except AccessDeniedError as exc:
        if isinstance(exc.__cause__, ApiException) and exc.__cause__.status == _UNAUTHORIZED:
            msg = "InfluxDB does not accept HEADRACE_INFLUX_TOKEN: make a new token there"
            raise ConfigurationError(msg) from exc
        raise


def _may_read(influx: Influx, name: str) -> bool:
    try:
        influx.run(_READS, {"bucket": name})
    except (AccessDeniedError, MissingResourceError):
        # InfluxDB hides buckets from tokens without the right to read them.
        return False
    return True


def _retention(influx: Influx, name: str) -> timedelta | None:
    """Return a bucket's retention; `None` if it is unlimited or unknown."""
    with influx_errors(on_bad_request=ConfigurationError):
        found = influx.client.buckets_api().find_buckets(name=name).buckets
    rules = found[0].retention_rules if found else []
    return timedelta(seconds=rules[0].every_seconds) if rules else None


def _create(influx: Influx, name: str, retention: timedelta) -> bool:
    """Create a bucket; return whether the token may do so."""
    try:
        with influx_errors(on_bad_request=ConfigurationError):
            orgs = influx.client.organizations_api().find_organizations(org=influx.org)
            # A token for buckets only may not read the organisation, but buckets contain its id.
            # InfluxDB applies its limit before the rights, so other organisations are left out.
            visible = [org.id for org in orgs] or [
                bucket.org_id
                for bucket in influx.client.buckets_api().find_buckets(org=influx.org).buckets
            ]
            if not visible:
                return False
            create_bucket(influx.client, visible[0], name, retention)
    except AccessDeniedError:
        return False
    return True


def _create_command(name: str, retention: timedelta, settings: Settings) -> str:
    seconds = int(retention.total_seconds())
    return shlex.join(
        [
            *("influx", "bucket", "create", "--name", name, "--org", settings.influx_org),
            *(("--retention", f"{seconds}s") if seconds else ()),
        ]
    )
