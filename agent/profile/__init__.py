"""Profiles: what a bench is. Read from YAML, filled in, validated whole."""

from agent.problems import ConfigErrors, Problem
from agent.profile.load import load_profile
from agent.profile.model import Profile
from agent.profile.schema import json_schema, schema_text
from agent.profile.shipped import find_profile, shipped

__all__ = [
    "ConfigErrors",
    "Problem",
    "Profile",
    "find_profile",
    "json_schema",
    "load_profile",
    "schema_text",
    "shipped",
]
