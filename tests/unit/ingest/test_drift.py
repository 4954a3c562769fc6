"""Devices with a wrong clock."""

from __future__ import annotations

from datetime import timedelta

from headrace.ingest.drift import DriftWatch

NOW = 1_700_000_000 * 10**9


def test_a_device_with_a_wrong_clock_is_listed_until_it_is_right() -> None:
    watch = DriftWatch(timedelta(seconds=30))
    watch.observe("behind", NOW - 31 * 10**9, NOW)
    watch.observe("ahead", NOW + 31 * 10**9, NOW)
    watch.observe("right", NOW - 29 * 10**9, NOW)
    found = {device: drift.seconds for device, drift in watch.devices().items()}
    assert found == {"behind": 31.0, "ahead": -31.0}
    watch.observe("behind", NOW, NOW)
    assert set(watch.devices()) == {"ahead"}


def test_a_quiet_device_is_no_longer_listed() -> None:
    now = 0.0
    watch = DriftWatch(timedelta(seconds=30), lambda: now)
    watch.observe("device", 0, NOW)
    now = 599.0
    assert watch.devices()
    now = 601.0
    assert not watch.devices()


def test_the_list_is_limited_and_accepts_any_number() -> None:
    watch = DriftWatch(timedelta(seconds=30))
    for number in range(10_100):
        watch.observe(f"d{number}", 10**400 * (-1) ** number, NOW)
    assert len(watch.devices()) == 10_000
