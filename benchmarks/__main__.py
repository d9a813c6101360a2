"""Runs benchmarks by name, or all of them, and prints a table for each."""

import importlib
import sys

NAMES = {
    "modbus": "benchmarks.modbus_client",
    "can": "benchmarks.can_bus",
    "canrate": "benchmarks.can_rate",
    "dnp3": "benchmarks.dnp3_master",
    "mqtt": "benchmarks.mqtt_driver",
    "opcua": "benchmarks.opcua_changes",
    "opcuaitems": "benchmarks.opcua_items",
    "amqp": "benchmarks.amqp_engine",
    "broker": "benchmarks.broker",
    "rate": "benchmarks.agent_rate",
    "command": "benchmarks.command_round_trip",
    "idle": "benchmarks.agent_idle",
    "store": "benchmarks.store",
    "durable": "benchmarks.durable_command",
    "spool": "benchmarks.spool",
}


def main() -> None:
    """Runs what the command line names."""
    chosen = sys.argv[1:] or list(NAMES)
    if unknown := [name for name in chosen if name not in NAMES]:
        sys.exit(f"no benchmark {unknown[0]!r}; there are {', '.join(NAMES)}")
    for name in chosen:
        importlib.import_module(NAMES[name]).main()


main()
