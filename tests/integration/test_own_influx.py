"""An InfluxDB of another team, with one token and without the operator token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from influxdb_client import Authorization, BucketRetentionRules, Permission
from influxdb_client.domain.bucket import Bucket
from influxdb_client.domain.permission_resource import PermissionResource

from headrace.errors import ConfigurationError, MissingResourceError
from headrace.storage.influx import Influx, influx_address
from headrace.storage.influx_setup import check_influx, provision_influx
from tests.support.backbone import Backbone
from tests.support.installation import Installation

#: Action and bucket; `None` means all buckets.
Grant = tuple[str, str | None]


@pytest.fixture
def installation(backbone: Backbone, tmp_path: Path) -> Iterator[Installation]:
    """An installation without buckets, with a set-up InfluxDB."""
    Installation(backbone, tmp_path / "first").provision()
    installation = Installation(backbone, tmp_path / "own")
    yield installation
    installation.close()


def give_token(installation: Installation, *grants: Grant, org: bool = False) -> str:
    """Create a token as an administrator and set it."""
    with installation.admin_influx() as influx:
        client = influx.client
        org_id = client.organizations_api().find_organizations(org=influx.org)[0].id
        permissions = []
        for action, bucket in grants:
            found = client.buckets_api().find_bucket_by_name(bucket) if bucket else None
            resource = PermissionResource("buckets", id=found.id if found else None, org_id=org_id)
            permissions.append(Permission(action, resource))
        if org:
            permissions.append(Permission("read", PermissionResource("orgs", id=org_id)))
        made = client.authorizations_api().create_authorization(
            authorization=Authorization(
                org_id=org_id, description="of another team", permissions=permissions
            )
        )
    token = str(made.token)
    installation.environment["HEADRACE_INFLUX_TOKEN"] = token
    return token


def make_buckets(installation: Installation, seconds: int) -> list[str]:
    names = [name for _, name in installation.profile.buckets]
    with installation.admin_influx() as influx:
        org_id = influx.client.organizations_api().find_organizations(org=influx.org)[0].id
        for name in names:
            rules = [BucketRetentionRules(type="expire", every_seconds=seconds)] if seconds else []
            influx.client.buckets_api().create_bucket(
                Bucket(name=name, org_id=org_id, retention_rules=rules)
            )
    return names


def states(installation: Installation) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for finding in check_influx(installation.settings, installation.profile):
        found.setdefault(finding.what.removeprefix("bucket "), []).append(finding.state)
    return found


@pytest.mark.parametrize("org", [True, False])
def test_a_token_for_all_buckets_creates_missing_ones(
    installation: Installation, *, org: bool
) -> None:
    """The token may or may not read its organisation."""
    names = {f"bucket {name}" for _, name in installation.profile.buckets}
    give_token(installation, ("read", None), ("write", None), org=org)
    settings, profile = installation.settings, installation.profile
    assert settings.influx_admin_token is None
    assert set(map(tuple, states(installation).values())) == {("missing",)}
    assert provision_influx(settings, profile) == dict.fromkeys(names, "made")
    assert provision_influx(settings, profile) == dict.fromkeys(names, "there")
    assert set(map(tuple, states(installation).values())) == {("fits",)}
    # The check wrote nothing and created no token.
    assert not settings.tokens_dir.exists()
    assert installation.points() == []
    with Influx(influx_address(settings, "sink")) as influx:
        # Without a time, InfluxDB uses its clock.
        line = f"{profile.measurement},{profile.id_field}=g1 {profile.counted_field}=1.0"
        influx.write(profile.buckets.raw, line.encode())
    assert len(installation.points(profile.counted_field)) == 1


def test_the_missing_rights_of_a_token_are_reported(installation: Installation) -> None:
    settings, profile = installation.settings, installation.profile
    token = give_token(installation, ("read", "_monitoring"))
    with pytest.raises(MissingResourceError, match=f"{profile.buckets.raw}: missing") as refused:
        provision_influx(installation.settings, profile)
    assert token not in str(refused.value)
    raw = check_influx(installation.settings, profile)[0]
    seconds = int(settings.raw_retention.total_seconds())
    command = f"influx bucket create --name {profile.buckets.raw} --org headrace --retention"
    assert raw.step == f"{command} {seconds}s"

    names = make_buckets(installation, 3600)
    give_token(installation, *(("write", name) for name in names))
    assert states(installation) == {key: ["the token may not read it"] for key in names}
    give_token(installation, *(("read", name) for name in names))
    lacking = states(installation)
    assert all(found[0] == "the token may not write it" for found in lacking.values())
    assert lacking[profile.buckets.raw][1] == "kept for 1h instead of 30d"
    assert lacking[profile.buckets.downsampled][1] == "kept for 1h instead of without limit"


def test_a_token_with_few_rights_is_enough_for_existing_buckets(installation: Installation) -> None:
    names = make_buckets(installation, 0)
    give_token(installation, *((action, name) for name in names for action in ("read", "write")))
    done = provision_influx(installation.settings, installation.profile)
    assert set(done.values()) == {"there"}
    assert states(installation) == {key: ["fits"] for key in names}


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("INFLUX_TOKEN", "recognisable", "does not accept HEADRACE_INFLUX_TOKEN"),
        ("INFLUX_ORG", "other", "set HEADRACE_INFLUX_ORG"),
    ],
)
def test_a_wrong_token_or_organisation_is_reported(
    installation: Installation, name: str, value: str, named: str
) -> None:
    give_token(installation, ("read", None), ("write", None))
    installation.environment[f"HEADRACE_{name}"] = value
    for call in (provision_influx, check_influx):
        with pytest.raises(ConfigurationError, match=named) as refused:
            call(installation.settings, installation.profile)
        assert "recognisable" not in str(refused.value)
