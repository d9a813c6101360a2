"""Signal databases, and the way from payloads to values and back. Pure but for reading files."""
