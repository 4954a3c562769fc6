"""Organisation, buckets and least-privilege tokens in InfluxDB."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from influxdb_client import Authorization, BucketRetentionRules, InfluxDBClient, Permission
from influxdb_client.domain.bucket import Bucket
from influxdb_client.domain.onboarding_request import OnboardingRequest
from influxdb_client.domain.permission_resource import PermissionResource
from influxdb_client.service.setup_service import SetupService

from headrace.errors import ConfigurationError, MissingResourceError
from headrace.profile import Profile
from headrace.settings import Settings
from headrace.storage.influx import Influx, InfluxAddress, influx_errors

__all__ = ["provision_influx"]

_FOREVER = timedelta(0)


def provision_influx(settings: Settings, profile: Profile) -> dict[str, str]:
    """Make the organisation, the buckets and the tokens that are missing.

    Each token goes to a file of its own in the tokens folder, readable by its owner
    alone: ``sink`` may write raw readings and nothing else, ``airflow`` reads them and
    owns the two other buckets.

    Returns
    -------
    dict
        What was done, by name.

    Raises
    ------
    ConfigurationError
        If the admin token or password is not set.
    AccessDeniedError
        If InfluxDB does not know the admin token.
    TransientError
        If it can't be reached.
    """
    if settings.influx_admin_token is None:
        msg = "HEADRACE_INFLUX_ADMIN_TOKEN is not set: provisioning needs it. `make env` makes one"
        raise ConfigurationError(msg)
    address = InfluxAddress(
        settings.influx_url,
        settings.influx_org,
        settings.influx_admin_token.get_secret_value(),
        settings.influx_ca_file,
    )
    done: dict[str, str] = {}
    with Influx(address) as influx, influx_errors(on_bad_request=ConfigurationError):
        client = influx.client
        if SetupService(client.api_client).get_setup().allowed:
            _set_up(client, settings, profile)
            done[f"organisation {settings.influx_org}"] = "made"
        org_id = _org_id(client, settings.influx_org)
        retentions = {
            profile.buckets.raw: settings.raw_retention,
            profile.buckets.downsampled: _FOREVER,
            profile.buckets.quality: _FOREVER,
        }
        bucket_ids = {}
        for name, retention in retentions.items():
            bucket_ids[name], done[f"bucket {name}"] = _bucket(client, org_id, name, retention)
        for role, grants in _roles(profile).items():
            path = settings.tokens_dir / f"{role}.token"
            done[f"token {role}"] = _token(client, org_id, role, grants, bucket_ids, path)
    return done


def _roles(profile: Profile) -> dict[str, dict[str, tuple[str, ...]]]:
    """What each token may do, by bucket."""
    buckets = profile.buckets
    return {
        "sink": {buckets.raw: ("write",)},
        "airflow": {
            buckets.raw: ("read",),
            buckets.downsampled: ("read", "write"),
            buckets.quality: ("read", "write"),
        },
    }


def _set_up(client: InfluxDBClient, settings: Settings, profile: Profile) -> None:
    if settings.influx_admin_password is None:
        msg = "HEADRACE_INFLUX_ADMIN_PASSWORD is not set: the first user needs one"
        raise ConfigurationError(msg)
    request = OnboardingRequest(
        username=settings.influx_admin_user,
        password=settings.influx_admin_password.get_secret_value(),
        org=settings.influx_org,
        bucket=profile.buckets.raw,
        retention_period_seconds=int(settings.raw_retention.total_seconds()),
        token=settings.influx_admin_token.get_secret_value()
        if settings.influx_admin_token
        else None,
    )
    SetupService(client.api_client).post_setup(onboarding_request=request)


def _org_id(client: InfluxDBClient, name: str) -> str:
    found = client.organizations_api().find_organizations(org=name)
    if not found:
        msg = f"InfluxDB has no organisation {name}. Set HEADRACE_INFLUX_ORG to one it has"
        raise MissingResourceError(msg)
    return str(found[0].id)


def _bucket(
    client: InfluxDBClient, org_id: str, name: str, retention: timedelta
) -> tuple[str, str]:
    buckets = client.buckets_api()
    seconds = int(retention.total_seconds())
    rules = [BucketRetentionRules(type="expire", every_seconds=seconds)]
    bucket = buckets.find_bucket_by_name(name)
    if bucket is None:
        bucket = buckets.create_bucket(Bucket(name=name, org_id=org_id, retention_rules=rules))
        return str(bucket.id), "made"
    present = bucket.retention_rules[0].every_seconds if bucket.retention_rules else 0
    if present != seconds:
        bucket.retention_rules = rules
        buckets.update_bucket(bucket)
        return str(bucket.id), f"kept for {retention} from now on"
    return str(bucket.id), "there"


def _token(
    client: InfluxDBClient,
    org_id: str,
    role: str,
    grants: Mapping[str, tuple[str, ...]],
    bucket_ids: Mapping[str, str],
    path: Path,
) -> str:
    description = f"headrace {role}"
    api = client.authorizations_api()
    wanted = {
        (action, bucket_ids[bucket]) for bucket, actions in grants.items() for action in actions
    }
    kept = path.read_text(encoding="utf-8").strip() if path.exists() else None
    usable = False
    for token in api.find_authorizations(org_id=org_id):
        if token.description != description:
            continue
        granted = {(item.action, item.resource.id) for item in token.permissions}
        if token.token == kept and granted == wanted and token.status == "active":
            usable = True
        else:
            api.delete_authorization(token)
    if usable:
        return "there"
    made = api.create_authorization(
        authorization=Authorization(
            org_id=org_id,
            description=description,
            permissions=[
                Permission(action, PermissionResource(type="buckets", id=bucket, org_id=org_id))
                for action, bucket in sorted(wanted)
            ],
        )
    )
    _write_secret(path, str(made.token))
    return f"in {path}"


def _write_secret(path: Path, secret: str) -> None:
    """Write a file that only its owner can read, and put it in place whole."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(f"{secret}\n")
    partial.replace(path)
