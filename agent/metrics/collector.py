"""What an agent's parts hold, as Prometheus metrics: read at each scrape, at no cost between two.

No label comes from outside: devices are those of the profile, all else is from fixed lists.
"""

from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from platform import machine, python_version
from typing import TYPE_CHECKING, get_args

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from agent import clock
from agent.availability import State
from agent.device import MISSED_CYCLES
from agent.lease.book import State as LeaseState
from agent.metrics.counts import BUCKETS_S, OPS, OTHER, UNKNOWN
from agent.metrics.devices import device_metrics
from agent.safety.report import Cause

if TYPE_CHECKING:
    from agent.app import Agent

REASONS = (
    *("outbox-full", "too-old", "expired", "rejected", "internal-error", "slow-disk", "store-corrupt"),
    *("disk-full", "read-only", "disk-error", "receive-overflow", "rate-limit", "recording"),
    *("event-buffer-overflow", "unreadable-response", "queue-overflow", "subscription-lost"),
    *("missed-notifications", "undecodable", "sequence", "malformed-topic"),
)
"""The reasons of losses that have a label of their own; all others are `other`."""


def gauge(name: str, text: str, value: float) -> Metric:
    """A gauge without labels."""
    return GaugeMetricFamily(name, text, value)


def counter(name: str, text: str, value: float) -> Metric:
    """A counter without labels; its name ends with `_total`."""
    return CounterMetricFamily(name, text, value)


def gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    """A gauge for each value of one label."""
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def counters(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    """A counter for each value of one label; its name ends with `_total`."""
    family = CounterMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


class AgentCollector(Collector):
    """Makes the metrics of one agent, for a `CollectorRegistry`."""

    def __init__(self, agent: "Agent", bench_id: str) -> None:
        self._agent = agent
        self._bench_id = bench_id
        self._build = [version("hilgate"), python_version(), machine()]  # read once: it parses a file

    def describe(self) -> Iterable[Metric]:
        """Nothing: a registry that gets it asks for no metrics when this is registered."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every metric as it is now."""
        agent = self._agent
        yield from self._bench()
        yield from device_metrics(agent.bench.devices)
        yield from self._commands()
        yield from self._uplink()
        yield from self._losses()
        yield from self._safety()
        yield from self._access()
        yield from self._clock()

    def _bench(self) -> Iterator[Metric]:
        agent = self._agent
        build = GaugeMetricFamily(
            "hilgate_build_info",
            "Always 1; the labels say which agent this is.",
            labels=["version", "python", "arch"],
        )
        build.add_metric(self._build, 1)
        yield build
        bench = GaugeMetricFamily(
            "hilgate_bench_info",
            "Always 1; the labels say which bench this is, by which profile, real (hil) or simulated (sil).",
            labels=["bench", "profile", "mode"],
        )
        bench.add_metric([self._bench_id, agent.bench.profile.profile, agent.bench.mode], 1)
        yield bench
        now = agent.availability.state
        yield gauges(
            "hilgate_bench_state",
            "1 for the state that the bench is in, 0 for all others.",
            "state",
            {state: state == now for state in get_args(State)},
        )
        yield gauge(
            "hilgate_bench_enabled",
            "1 while the bench takes commands that move it, 0 while it is in maintenance.",
            agent.availability.enabled,
        )
        yield gauge(
            "hilgate_stalled",
            "1 while a part of the agent makes no progress, as /livez says in words.",
            bool(agent.progress.stalled()),
        )
        yield gauge(
            "hilgate_epoch",
            "The agent's incarnation: one more at every start with the same store.",
            agent.store.epoch,
        )
        leases = agent.leases.states()
        yield gauge(
            "hilgate_lease_active",
            "1 while somebody holds a lease of the bench or of some of its devices.",
            any(state in (LeaseState.HELD, LeaseState.LAPSED) for state in leases),
        )
        yield gauges(
            "hilgate_leases",
            "Leases by where in their life they are.",
            "state",
            {state: leases.count(state) for state in LeaseState if state is not LeaseState.GONE},
        )

    def _commands(self) -> Iterator[Metric]:
        commands = self._agent.commands
        counts = commands.counts
        outcomes = CounterMetricFamily(
            "hilgate_commands_total",
            "Commands that have their result, by how they ended.",
            labels=["op", "status"],
        )
        for (op, status), count in counts.outcomes.items():
            outcomes.add_metric([op, status], count)
        yield outcomes
        yield counters(
            "hilgate_command_errors_total",
            "Commands that were rejected or failed, by the code of their result.",
            "code",
            counts.codes,
        )
        took = HistogramMetricFamily(
            "hilgate_command_duration_seconds",
            "Time from a command's arrival to its result, by op; by the wall clock.",
            labels=["op"],
        )
        for op, durations in counts.durations.items():
            took.add_metric([op], list(_cumulative(durations.buckets)), durations.total_s)
        yield took
        yield gauge(
            "hilgate_commands_waiting", "Commands that came and are not settled yet.", commands.waiting
        )
        yield counter(
            "hilgate_commands_repeated_total",
            "Commands that came again and were answered by their recorded result.",
            counts.repeated,
        )
        yield counter(
            "hilgate_malformed_messages_total",
            "Messages to the commands queue that were no commands at all.",
            commands.malformed,
        )

    def _uplink(self) -> Iterator[Metric]:
        agent, outbox = self._agent, self._agent.store.outbox
        yield gauge("hilgate_broker_up", "1 while the broker is connected.", agent.client.connected)
        yield gauge(
            "hilgate_broker_blocked",
            "1 while the broker is connected and takes nothing: it is full, or short of memory.",
            agent.client.blocked,
        )
        yield counter(
            "hilgate_broker_connects_total", "How often the broker was connected to.", agent.client.connects
        )
        yield counters(
            "hilgate_messages_sent_total",
            "Messages that left for good: accepted, unrouted (nobody listens), rejected (a dead letter).",
            "outcome",
            {
                "accepted": agent.uplink.accepted,
                "unrouted": agent.uplink.unrouted,
                "rejected": agent.uplink.dead_letters,
            },
        )
        waits = outbox.stats()
        yield gauge(
            "hilgate_outbox_messages",
            "Messages that wait until the broker has accepted them.",
            waits.messages,
        )
        yield gauge("hilgate_outbox_bytes", "Size of the messages that wait.", waits.bytes)
        yield gauge(
            "hilgate_outbox_limit_bytes",
            "What the outbox holds at most; over it the oldest telemetry is given up.",
            outbox.max_bytes,
        )
        yield gauge("hilgate_outbox_oldest_seconds", "Age of the oldest message that waits.", waits.oldest_s)
        yield gauge(
            "hilgate_store_healthy",
            "1 while what is to be kept reaches the disk, 0 while the agent goes on in memory.",
            not agent.store.trouble,
        )

    def _losses(self) -> Iterator[Metric]:
        totals = dict.fromkeys((*REASONS, OTHER), 0)
        parts = [self._agent.store.outbox.lost]
        parts += [device.losses.totals for device in self._agent.bench.devices.values()]
        for part in parts:
            for reason, count in part.items():
                if reason != MISSED_CYCLES:
                    totals[reason if reason in totals else OTHER] += count
        yield counters(
            "hilgate_lost_total",
            "Events, samples and frames that were lost, by why; polls are hilgate_missed_polls_total.",
            "reason",
            totals,
        )

    def _safety(self) -> Iterator[Metric]:
        safety = self._agent.safety
        yield gauge(
            "hilgate_faults",
            "Things that are wrong until put right or until a person has looked.",
            len(safety.faults),
        )
        yield gauge("hilgate_unsafe_devices", "Devices that could not be made safe.", len(safety.unsafe))
        drives = CounterMetricFamily(
            "hilgate_safe_drives_total",
            "How often devices were made safe, by why, and whether all of them were (reached).",
            labels=["cause", "reached"],
        )
        for cause in get_args(Cause):
            for reached in (True, False):
                drives.add_metric([cause, str(reached).lower()], safety.drives[cause, reached])
        yield drives

    def _access(self) -> Iterator[Metric]:
        authorizer, certificates = self._agent.authorizer, self._agent.certificates
        judged = CounterMetricFamily(
            "hilgate_commands_judged_total",
            "Commands that were judged by the rules, by op and verdict.",
            labels=["op", "verdict"],
        )
        for verdict, counts in (
            ("authorized", authorizer.authorized),
            ("unauthorized", authorizer.unauthorized),
            ("rate-limited", authorizer.rate_limited),
        ):
            for op in (*OPS, UNKNOWN):
                judged.add_metric([op, verdict], counts[op])
        yield judged
        yield gauge(
            "hilgate_token_keys_healthy",
            "1 while the keys that tokens are checked with are fresh, or none are needed.",
            not authorizer.trouble,
        )
        yield gauges(
            "hilgate_certificate_not_after_seconds",
            "When a certificate ends (Unix time), by the setting, or device and field, that names it.",
            "name",
            certificates.not_after,
        )
        yield counter(
            "hilgate_certificate_renewals_total",
            "How often new certificates, keys or passwords were taken up.",
            certificates.renewals,
        )
        yield counter(
            "hilgate_certificate_renewal_failures_total",
            "How often new certificates, keys or passwords could not be used, and the old ones stayed.",
            certificates.failures,
        )

    def _clock(self) -> Iterator[Metric]:
        status = clock.clock_status()
        yield gauge(
            "hilgate_clock_synchronised",
            "1 while a time service keeps this machine's clock.",
            status.synchronised,
        )
        yield gauge(
            "hilgate_clock_offset_seconds",
            "The clock's last known error as the kernel was told.",
            status.offset_s,
        )


def _cumulative(buckets: Iterable[int]) -> Iterator[tuple[str, float]]:
    """Buckets as the exposition format has them: each holds those below it too."""
    total = 0
    for bound, count in zip((*map(repr, BUCKETS_S), "+Inf"), buckets, strict=True):
        total += count
        yield bound, total
