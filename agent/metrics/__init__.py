"""What an agent shows to Prometheus: numbers that its parts hold, read when somebody asks.

`counts` is what the parts count with; `collector` makes metrics of it. The names are documented in
docs/monitoring.md, and a test holds the two together.
"""
