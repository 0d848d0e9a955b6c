"""Property tests here are repeatable and have no deadline: the first call of torch is slow."""

from hypothesis import settings

settings.register_profile("geometry", deadline=None, derandomize=True)
settings.load_profile("geometry")
