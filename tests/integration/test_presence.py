"""`headrace status` lists offline devices with their times, and devices with wrong clocks."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headrace.ingest.presence import recorded_presence
from headrace.models.presence import PresenceState
from headrace.models.window import parse_time, rfc3339
from tests.support.devices import Publisher, reading
from tests.support.installation import Installation
from tests.support.processes import free_port, wait_for

DEVICES = ["generator1", "generator2", "generator3"]


def devices_in_status(installation: Installation) -> dict[str, Any]:
    """Return the section on devices of `headrace status --json`."""
    content: dict[str, Any] = json.loads(installation.headrace("status", "--json").stdout)
    return dict(content["devices"])


def states(installation: Installation) -> dict[str, PresenceState]:
    known = recorded_presence(installation.kafka, installation.profile)
    return {device: presence.state for device, presence in known.items()}


def test_a_killed_device_is_offline_until_it_reconnects(installation: Installation) -> None:
    """Two bridges share the devices. The devices are killed, so the broker sends their wills."""
    name = installation.name
    topics = [f"{name}/{device}" for device in DEVICES]
    port = str(free_port())
    first = installation.worker("bridge", HEADRACE_MQTT_TOPICS=topics[0])
    other = installation.worker(
        "bridge",
        label="other",
        HEADRACE_MQTT_TOPICS=",".join(topics[1:]),
        HEADRACE_BRIDGE_ID=f"other-{name}",
        HEADRACE_BRIDGE_METRICS_PORT=port,
    )
    first.start()
    other.launch()
    wait_for(lambda: installation.healthy(int(port)))
    fleet = installation.worker("simulate", "--generators", "3", "--interval", "1")
    fleet.launch()
    online = dict.fromkeys(DEVICES, PresenceState.ONLINE)
    wait_for(lambda: states(installation) == online)
    killed = datetime.now(UTC)
    fleet.kill()
    wait_for(lambda: states(installation) == dict.fromkeys(DEVICES, PresenceState.OFFLINE))
    seen = devices_in_status(installation)
    assert seen["online"] == 0
    assert sorted(item["device"] for item in seen["offline"]) == DEVICES
    for item in seen["offline"]:
        assert killed <= parse_time(item["since"]) <= datetime.now(UTC)
    table = installation.headrace("status").stdout
    assert all(device in table for device in DEVICES)

    # A bridge with a new session receives the retained messages again, which changes nothing.
    first.stop()
    records = len(installation.records(installation.profile.topics.status))
    third = installation.worker("bridge", label="third", HEADRACE_BRIDGE_ID=f"third-{name}")
    third.start()
    status_topic = installation.profile.topics.status
    wait_for(lambda: len(installation.records(status_topic)) >= records + len(DEVICES))
    assert devices_in_status(installation)["offline"] == seen["offline"]

    fleet.launch()
    wait_for(lambda: states(installation) == online)
    # A decommissioned device is removed from the list.
    fleet.stop()
    with Publisher(installation.backbone.mqtt_port) as operator:
        operator.send(f"{topics[2]}/status", b"", retain=True).wait_for_publish(10)
    wait_for(lambda: sorted(states(installation)) == DEVICES[:2])
    seen = devices_in_status(installation)
    assert {item["device"] for item in seen["offline"]} == set(DEVICES[:2])


def test_wrong_device_clocks_are_counted_and_shown(
    installation: Installation,
) -> None:
    installation.worker("bridge").start()
    now = datetime.now(UTC)
    off = {
        "slow": timedelta(minutes=-2),
        "fast": timedelta(minutes=2),
        # The clocks of these two are so wrong that their readings become dead letters.
        "faster": timedelta(hours=1),
        "reset": datetime(1970, 1, 1, tzinfo=UTC) - now,
    }
    sent = [(device, now + wrong) for device, wrong in off.items()]
    sent += [("right", now), ("within", now - timedelta(seconds=20))]
    # Buffered readings are late, but their device's clock is right.
    sent += [("buffered", now - timedelta(hours=3)), ("buffered", now)]
    with Publisher(installation.backbone.mqtt_port) as publisher:

        def send(device: str, time: datetime | None) -> None:
            payload = reading(device, time=rfc3339(time) if time else ...)
            publisher.send_all([(f"{installation.name}/{device}", payload)])

        for device, time in sent:
            send(device, time)
        send("silent", None)

        def counted() -> float:
            return installation.metric(installation.bridge_port, "headrace_bridge_drifting_devices")

        wait_for(lambda: counted() == len(off))
        drifting = devices_in_status(installation)["drifting"]
        assert sorted(drifting) == sorted(off)
        for device, wrong in off.items():
            assert drifting[device] == pytest.approx(-wrong.total_seconds(), abs=15)
        table = installation.headrace("status").stdout
        assert "behind" in table
        assert "ahead" in table
        # The clock is corrected.
        send("slow", datetime.now(UTC))
        wait_for(lambda: counted() == len(off) - 1)
    assert "slow" not in devices_in_status(installation)["drifting"]
