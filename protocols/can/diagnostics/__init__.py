"""Conversations of several frames: ISO-TP (ISO 15765-2) and UDS (ISO 14229)."""
