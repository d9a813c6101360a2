"""Commands: parsed, judged, carried out once, answered once (wire.md section 4)."""
