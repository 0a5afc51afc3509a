"""Hypothesis profiles for all tests, chosen by the environment variable HYPOTHESIS_PROFILE."""

import os

from hypothesis import HealthCheck, settings

# The same examples in every run: a merge request fails for what it changes, not for its luck.
# How long examples take to make says how busy the machine is, and nothing of the code.
settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow],
)

# For finding what CI has not seen: random, long, and with the examples that failed before kept in
# .hypothesis/ and tried first. Slow generation is no failure when hours are meant to go by.
settings.register_profile(
    "soak",
    max_examples=int(os.environ.get("SOAK_EXAMPLES", "5000")),
    stateful_step_count=200,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
