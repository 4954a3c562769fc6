"""Organisation, buckets and least-privilege tokens in InfluxDB."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from influxdb_client import Authorization, BucketRetentionRules, InfluxDBClient, Permission
from influxdb_client.domain.bucket import Bucket
from influxdb_client.domain.onboarding_request import OnboardingRequest
from influxdb_client.domain.permission_resource import PermissionResource
from influxdb_client.rest import ApiException
from influxdb_client.service.setup_service import SetupService

from headrace.errors import AccessDeniedError, ConfigurationError, MissingResourceError
from headrace.profile import Profile
from headrace.settings import Settings
from headrace.storage.findings import Finding
from headrace.storage.identity import installation_id, write_secret
from headrace.storage.influx import Influx, InfluxAddress, influx_errors
from headrace.storage.influx_buckets import bucket_retentions, create_bucket
from headrace.storage.influx_own import check_own_influx, provision_own_influx

__all__ = ["check_influx", "provision_influx"]

_UNAUTHORIZED = 401
_ADMIN_REFUSED = (
    "InfluxDB does not accept HEADRACE_INFLUX_ADMIN_TOKEN. If .env is newer than InfluxDB's data, "
    "restore the .env that the data were created with, or delete all data with `make reset`"
)
_NOT_FOUND = 404


def provision_influx(settings: Settings, profile: Profile) -> dict[str, str]:
    """Create missing organisation, buckets and tokens.

    Each token is written to a separate file in the tokens folder, which only its owner can
    read. ``sink`` may only write raw readings. ``airflow`` reads them, and reads and writes the
    two other buckets. Tokens of other installations in the same organisation are not changed.

    It can be interrupted at any point; the next run completes it. With `HEADRACE_INFLUX_TOKEN`
    no token is created, and buckets only if that token may.

    Returns
    -------
    dict
        Performed changes by name.

    Raises
    ------
    ConfigurationError
        If the admin token or password is not set.
    AccessDeniedError
        If InfluxDB does not know the admin token.
    TransientError
        If it can't be reached.
    """
    if settings.influx_token is not None:
        return provision_own_influx(settings, profile)
    done: dict[str, str] = {}
    with (
        Influx(_admin_address(settings)) as influx,
        influx_errors(on_bad_request=ConfigurationError),
    ):
        client = influx.client
        if SetupService(client.api_client).get_setup().allowed:
            _set_up(client, settings, profile)
            done[f"organisation {settings.influx_org}"] = "made"
        org_id = _admin_org_id(client, settings)
        bucket_ids = {}
        for name, retention in bucket_retentions(profile, settings).items():
            bucket_ids[name], done[f"bucket {name}"] = _bucket(client, org_id, name, retention)
        installation = installation_id(settings)
        for role, grants in _roles(profile).items():
            path = settings.tokens_dir / f"{role}.token"
            wanted = {
                (action, bucket_ids[bucket])
                for bucket, actions in grants.items()
                for action in actions
            }
            tokens = _Tokens(client, org_id, f"headrace {installation} {role}")
            done[f"token {role}"] = tokens.provide(wanted, path, inherited=f"headrace {role}")
    return done


def check_influx(settings: Settings, profile: Profile) -> list[Finding]:
    """Compare InfluxDB with what Headrace needs, and change nothing; raises as `provision_influx`.

    With the operator token, `headrace provision` can create everything that is missing.
    """
    if settings.influx_token is not None:
        return check_own_influx(settings, profile)
    step = "headrace provision"
    organisation = f"organisation {settings.influx_org}"
    with (
        Influx(_admin_address(settings)) as influx,
        influx_errors(on_bad_request=ConfigurationError),
    ):
        client = influx.client
        if SetupService(client.api_client).get_setup().allowed:
            return [Finding(organisation, "missing", step)]
        org_id = _admin_org_id(client, settings)
        findings = [Finding(organisation)]
        for name, retention in bucket_retentions(profile, settings).items():
            bucket = _find_bucket(client, org_id, name)
            seconds = int(retention.total_seconds())
            if bucket is None:
                findings.append(Finding(f"bucket {name}", "missing", step))
            elif _seconds_of(bucket) != seconds:
                said = f"kept for {_seconds_of(bucket)} s instead of {seconds} s"
                findings.append(Finding(f"bucket {name}", said, step))
            else:
                findings.append(Finding(f"bucket {name}"))
    for role in _roles(profile):
        path = settings.tokens_dir / f"{role}.token"
        there = path.exists()
        findings.append(
            Finding(f"token {role}") if there else Finding(f"token {role}", "missing", step)
        )
    return findings


def _admin_address(settings: Settings) -> InfluxAddress:
    if settings.influx_admin_token is None:
        msg = (
            "HEADRACE_INFLUX_ADMIN_TOKEN is not set: provisioning needs it. `make env` writes one. "
            "For an InfluxDB with an administrator of its own, set HEADRACE_INFLUX_TOKEN instead"
        )
        raise ConfigurationError(msg)
    return InfluxAddress(
        settings.influx_url,
        settings.influx_org,
        settings.influx_admin_token.get_secret_value(),
        settings.influx_ca_file,
    )


def _admin_org_id(client: InfluxDBClient, settings: Settings) -> str:
    try:
        return _org_id(client, settings.influx_org)
    except ApiException as exc:
        if exc.status != _UNAUTHORIZED:
            raise
        raise AccessDeniedError(_ADMIN_REFUSED) from exc


def _roles(profile: Profile) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return the rights of each token by bucket."""
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
        msg = "HEADRACE_INFLUX_ADMIN_PASSWORD is not set. `make env` writes one for the first user"
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
    bucket = _find_bucket(client, org_id, name)
    if bucket is None:
        return str(create_bucket(client, org_id, name, retention).id), "made"
    if _seconds_of(bucket) != seconds:
        bucket.retention_rules = [
            BucketRetentionRules(
                type="expire",
                every_seconds=seconds,
                # InfluxDB keeps the old shard length and refuses a shorter retention.
                shard_group_duration_seconds=_shard_seconds(retention),
            )
        ]
        buckets.update_bucket(bucket)
        return str(bucket.id), f"kept for {retention} from now on"
    return str(bucket.id), "there"


def _seconds_of(bucket: Bucket) -> int:
    """How long a bucket keeps its data; 0 means without limit."""
    return int(bucket.retention_rules[0].every_seconds) if bucket.retention_rules else 0


def _find_bucket(client: InfluxDBClient, org_id: str, name: str) -> Bucket | None:
    """Find a bucket in one organisation, because others can have one of the same name."""
    try:
        found = client.buckets_api().find_buckets(name=name, org_id=org_id).buckets
    except ApiException as exc:
        if exc.status == _NOT_FOUND:
            return None
        raise
    return next(iter(found), None)


def _shard_seconds(retention: timedelta) -> int:
    """Return the length of a shard group that InfluxDB chooses for a retention."""
    if not retention or retention > timedelta(days=180):
        length = timedelta(days=7)
    elif retention > timedelta(days=2):
        length = timedelta(days=1)
    else:
        length = timedelta(hours=1)
    return int(length.total_seconds())


class _Tokens:
    """Tokens of one role of one installation.

    Parameters
    ----------
    client, org_id
        InfluxDB and the organisation.
    description
        Description of the role's tokens of this installation.
    """

    def __init__(self, client: InfluxDBClient, org_id: str, description: str) -> None:
        self._api = client.authorizations_api()
        self._org_id = org_id
        self._description = description

    def provide(self, wanted: set[tuple[str, str]], path: Path, *, inherited: str) -> str:
        """Ensure that the file has a token with these permissions; remove other tokens.

        The file is replaced before old tokens are deleted, so that a client that reads it after
        an InfluxDB has refused a token finds one that it accepts.

        Parameters
        ----------
        wanted
            Actions and buckets' ids.
        path
            File of the token.
        inherited
            Description that earlier versions gave to tokens of every installation: only the
            token in the file is ours.
        """
        kept = path.read_text(encoding="utf-8").strip() if path.exists() else None
        usable: Authorization | None = None
        obsolete = []
        for token in self._api.find_authorizations(org_id=self._org_id):
            ours = token.description == self._description
            if not ours and not (token.description == inherited and token.token == kept):
                continue
            granted = {(item.action, item.resource.id) for item in token.permissions}
            if token.token == kept and granted == wanted and token.status == "active":
                usable = token
            else:
                obsolete.append(token)
        state = "there"
        if usable is None:
            write_secret(path, self._create(wanted))
            state = f"in {path}"
        elif usable.description != self._description:
            usable.description = self._description
            self._api.update_authorization(usable)
        for token in obsolete:
            self._api.delete_authorization(token)
        return state

    def _create(self, wanted: set[tuple[str, str]]) -> str:
        permissions = [
            Permission(action, PermissionResource(type="buckets", id=bucket, org_id=self._org_id))
            for action, bucket in sorted(wanted)
        ]
        made = self._api.create_authorization(
            authorization=Authorization(
                org_id=self._org_id, description=self._description, permissions=permissions
            )
        )
        return str(made.token)
