"""Settings of all tests."""

from hypothesis import HealthCheck, settings

# Busy machines make single examples slow: that says nothing about the code.
settings.register_profile("hilgate", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("hilgate")
