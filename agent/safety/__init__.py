"""Nothing left unsafe: limits of rate, interlocks, safe values, and faults where these were not reached."""

from agent.safety.keeper import Safety
from agent.safety.report import Cause

__all__ = ["Cause", "Safety"]
