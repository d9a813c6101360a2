"""Leases: who may write to the bench, or to some of its devices, and until when."""

from agent.lease.hooks import Hooks
from agent.lease.keeper import Leases

__all__ = ["Hooks", "Leases"]
