"""The metrics of devices, each labelled with its name in the profile."""

from collections.abc import Iterator, Mapping
from typing import Protocol, runtime_checkable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from agent.device import MISSED_CYCLES, Device
from protocols.base import DeviceState


@runtime_checkable
class Bus(Protocol):
    """A driver of a bus that measures how busy it is."""

    def bus_load(self) -> float | None:
        """The share of the bus's time that was in use since it was last asked for; None: not known."""


def device_metrics(devices: Mapping[str, Device]) -> Iterator[Metric]:
    """The metrics of all devices that the profile enables."""
    up = _gauge("hilgate_device_up", "1 while commands to the device may succeed (online or degraded).")
    degraded = _gauge("hilgate_device_degraded", "1 while the link is up and the device is not well.")
    connects = _counter("hilgate_device_connects_total", "How often the link to the device was made.")
    samples = _counter(
        "hilgate_samples_total", "Samples, or batches of raw frames, that came from the device."
    )
    sampled = _gauge(
        "hilgate_device_last_sample_timestamp_seconds", "When the device's last sample was taken (Unix time)."
    )
    missed = _counter(
        "hilgate_missed_polls_total", "Polls of the device that were skipped: time ran out for them."
    )
    load = _gauge(
        "hilgate_can_bus_load_ratio",
        "Share of the CAN bus's time that frames took since the last scrape, without stuff bits.",
    )
    for name, device in devices.items():
        if not device.config.enabled:
            continue
        up.add_metric([name], device.usable)
        degraded.add_metric([name], device.status is DeviceState.DEGRADED)
        connects.add_metric([name], device.connects)
        samples.add_metric([name], device.taken)
        if device.taken_ns:
            sampled.add_metric([name], device.taken_ns / 1e9)
        missed.add_metric([name], device.losses.totals[MISSED_CYCLES])
        if isinstance(device.driver, Bus) and (ratio := device.driver.bus_load()) is not None:
            load.add_metric([name], ratio)
    yield from (up, degraded, connects, samples, sampled, missed, load)


def _gauge(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=["device"])


def _counter(name: str, text: str) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, labels=["device"])
