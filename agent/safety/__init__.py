"""Nothing left unsafe: limits of rate, interlocks, safe values, and what is known of those that were not reached."""

from agent.safety.keeper import Cause, Safety

__all__ = ["Cause", "Safety"]
