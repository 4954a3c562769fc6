"""The rights that Headrace's Kafka user needs, as Kafka's ACLs name them."""

from __future__ import annotations

from typing import NamedTuple

from headrace.profile import Profile
from headrace.storage.kafka_log import READER_GROUP

__all__ = ["Acl", "needed_acls"]


class Acl(NamedTuple):
    """One right.

    Parameters
    ----------
    operation
        Such as ``Read``. ``Read`` and ``Write`` include ``Describe``.
    resource
        ``topic``, ``group`` or ``transactional-id``, as in the options of ``kafka-acls.sh``.
    name
        Name of the resource.
    purpose
        Who needs it, and for what.
    """

    operation: str
    resource: str
    name: str
    purpose: str


def needed_acls(profile: Profile, bridge_id: str) -> tuple[Acl, ...]:
    """Return every right that bridge, sink and Airflow need, and no more.

    Creating and altering topics is not among them: an administrator can do that.
    """
    topics = profile.topics
    purposes = {
        topics.raw: ("sink, audit; the bridge after a restart", "bridge, replay"),
        topics.dead_letter: ("audit, replay, quality checks", "bridge, sink, replay"),
        topics.status: ("status page", "bridge"),
        topics.downsampled: ("republish: what is published already", "republish"),
        topics.alarms: ("republish: what is published already", "republish"),
    }
    of_topics = [
        Acl(operation, "topic", name, purpose)
        for name, (reads, writes) in purposes.items()
        for operation, purpose in (
            ("Read", reads),
            ("Write", writes),
            ("DescribeConfigs", "`headrace provision`"),
        )
    ]
    return (
        *of_topics,
        Acl("Read", "group", profile.sink_group, "sink; Airflow waits for its offsets"),
        Acl("Read", "group", f"headrace-lost-{profile.name}", "sink: what Kafka deleted too early"),
        Acl("Read", "group", f"headrace-bookmarks-{bridge_id}", "bridge, one for each bridge"),
        Acl("Describe", "group", READER_GROUP, "whatever reads a topic outside the sink"),
        Acl("Write", "transactional-id", f"headrace-republish-{profile.name}", "republish"),
        Acl("Write", "transactional-id", f"headrace-replay-{profile.name}", "replay"),
    )
