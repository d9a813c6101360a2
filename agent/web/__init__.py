"""Health, status and metrics over HTTP, for probes, for Prometheus and for people. Read only.

`server` imports aiohttp and prometheus_client, which are an extra and slow to import; `token` does not.
"""
