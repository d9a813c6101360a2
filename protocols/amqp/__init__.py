"""AMQP 1.0 on asyncio: message codec, engine for both roles, and the reconnecting client."""
