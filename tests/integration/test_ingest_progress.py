"""Ingest progress from committed offsets, and waiting for it."""

from __future__ import annotations

import threading
from datetime import timedelta

from confluent_kafka import TopicPartition

from headrace.stages.ingest_progress import catches_up, end_of_topic
from tests.support.installation import Installation

PATIENCE = timedelta(seconds=1)


def test_waiting_covers_readings_between_kafka_and_influxdb(installation: Installation) -> None:
    """While a fleet sends, the newest readings are always in Kafka but not yet in InfluxDB."""
    kafka, profile = installation.kafka, installation.profile
    topic, group = profile.topics.raw, profile.sink_group
    producer = kafka.producer()
    producer.produce(topic, b"{}", partition=0)
    assert producer.flush(10) == 0
    ends = end_of_topic(kafka, topic)
    sink = kafka.consumer(group)
    nothing = [TopicPartition(topic, partition, 0) for partition in ends]
    sink.commit(offsets=nothing, asynchronous=False)
    assert not catches_up(kafka, topic, group, ends, PATIENCE)

    commits = [TopicPartition(topic, partition, end) for partition, end in ends.items()]
    later = threading.Timer(0.5, lambda: sink.commit(offsets=commits, asynchronous=False))
    later.start()
    try:
        assert catches_up(kafka, topic, group, ends, 30 * PATIENCE)
    finally:
        later.join()
        sink.close()
