"""Hypothesis profiles, and what the whole suite shares."""

from __future__ import annotations

import os
from datetime import timedelta

from hypothesis import HealthCheck, settings

_QUIET = (HealthCheck.too_slow, HealthCheck.data_too_large)

settings.register_profile(
    "dev", max_examples=30, deadline=timedelta(seconds=10), suppress_health_check=_QUIET
)
# CI must say the same thing twice: no randomness, no deadline on a shared machine, no database.
settings.register_profile(
    "ci",
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=_QUIET,
)
settings.register_profile("nightly", max_examples=2000, deadline=None, suppress_health_check=_QUIET)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))
