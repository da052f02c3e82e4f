"""What all tests share: Hypothesis draws the same examples in every run, whatever the load."""

from hypothesis import settings

settings.register_profile("same every time", derandomize=True, deadline=None)
settings.load_profile("same every time")
