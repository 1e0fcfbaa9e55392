"""How many examples hypothesis tries: a profile for each occasion, and each test's share of it."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import settings

settings.register_profile("dev", deadline=None)  # new examples each time
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)  # the same ones
settings.register_profile("soak", deadline=None, max_examples=5000)  # overnight
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


def examples(per_hundred: int, **options: Any) -> settings:
    """A decorator: so many examples where the profile has a hundred (`dev`, `ci`)."""
    count = settings.default.max_examples * per_hundred // 100
    return settings(max_examples=count, **options)
