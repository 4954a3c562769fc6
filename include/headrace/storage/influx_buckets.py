"""The buckets of a profile, and how long they keep their data."""

from __future__ import annotations

from datetime import timedelta

from influxdb_client import BucketRetentionRules, InfluxDBClient
from influxdb_client.domain.bucket import Bucket

from headrace.profile import Profile
from headrace.settings import Settings

__all__ = ["bucket_retentions", "create_bucket"]

_FOREVER = timedelta(0)


def bucket_retentions(profile: Profile, settings: Settings) -> dict[str, timedelta]:
    """Return how long each bucket keeps its data; zero means without limit."""
    return {
        profile.buckets.raw: settings.raw_retention,
        profile.buckets.downsampled: _FOREVER,
        profile.buckets.quality: _FOREVER,
    }


def create_bucket(client: InfluxDBClient, org_id: str, name: str, retention: timedelta) -> Bucket:
    """Create a bucket. A retention of zero means without limit."""
    rules = [BucketRetentionRules(type="expire", every_seconds=int(retention.total_seconds()))]
    return client.buckets_api().create_bucket(
        Bucket(name=name, org_id=org_id, retention_rules=rules)
    )
