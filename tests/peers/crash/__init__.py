"""The crash test: agent and broker are killed at random instants, and nothing may be lost or done twice."""
