"""A SIGKILL of mosquitto loses at most the messages since its last save."""

from __future__ import annotations

import re
import time

import pytest

from native.programs import HERE
from tests.support.installation import Installation
from tests.support.processes import wait_for
from tests.support.streams import Stream, count_stream

RATE = 200


def autosave_interval() -> int:
    """Return the seconds between two saves, from the shipped configuration."""
    text = (HERE / "config" / "mosquitto.conf").read_text()
    match = re.search(r"(?m)^autosave_interval (\d+)$", text)
    assert match is not None
    return int(match[1])


@pytest.mark.long
@pytest.mark.parametrize("bridge_is", ["connected", "away"])
def test_a_killed_broker_loses_at_most_one_autosave_interval(
    installation: Installation, bridge_is: str
) -> None:
    backbone, interval = installation.backbone, autosave_interval()
    bridge = installation.worker("bridge")
    bridge.start()
    installation.worker("sink").launch()
    stream = Stream(installation, "timed", qos=1, with_time=True, rate=RATE)
    stream.start()
    # Long enough for mosquitto to save the bridge's session.
    time.sleep(1.5 * interval)
    if bridge_is == "away":
        assert bridge.stop() == 0
        time.sleep(1.7 * interval)
    before = len(stream.acknowledged)
    backbone.mosquitto.kill()
    backbone.mosquitto.start()
    time.sleep(2)
    stream.finish()
    if bridge_is == "away":
        bridge.start()
    wait_for(lambda: installation.healthy(installation.bridge_port), 60)
    # There is no signal for the last message, so wait until none has arrived for a while.
    found = -1
    while found != (found := len(installation.records(installation.profile.topics.raw))):
        time.sleep(2)
    count, _ = count_stream(stream, installation)
    print(  # noqa: T201 - what the test measures
        f"bridge {bridge_is}: of {before} readings acknowledged before the SIGKILL "
        f"{len(count.lost)} lost, {len(count.twice)} twice"
    )
    # Allow time for the save itself on a busy machine.
    allowed = RATE * (interval + 5) if bridge_is == "away" else RATE
    assert len(count.lost) <= allowed
