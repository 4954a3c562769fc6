"""Connects the stages with the adapters of their stores."""

from __future__ import annotations

from headrace.profile import Profile
from headrace.settings import Settings
from headrace.stages.pipeline import Pipeline
from headrace.storage.flux_files import FluxFiles
from headrace.storage.influx import Influx
from headrace.storage.influx_quality import InfluxQualityStore
from headrace.storage.influx_windows import InfluxWindowStore
from headrace.storage.kafka import Kafka

__all__ = ["make_pipeline"]


def make_pipeline(settings: Settings, profile: Profile, influx: Influx, kafka: Kafka) -> Pipeline:
    """Create the pipeline of a profile from clients that the caller closes."""
    flux = FluxFiles(influx, profile, settings.flux_dir)
    return Pipeline(
        profile,
        InfluxWindowStore(flux),
        InfluxQualityStore(flux),
        kafka,
        settings.raw_retention,
    )
