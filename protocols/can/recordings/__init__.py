"""Recordings of a bus: written while it runs, read, played and converted."""
