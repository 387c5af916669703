"""Metrics of this process: counted where things happen, read by the exporter and at /metrics.

Instruments are process-wide, like loggers, and made once at import from a definition of the catalogue. They are used on
the event loop; recording takes well under a microsecond and never waits.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence

from lostwax.contracts.metrics import Metric

Attributes = tuple[str, ...]

_MOST_SERIES = 2_000
_OTHERS = "others"


class Distribution:
    """One series of a histogram: how many in each bucket (the last is beyond all bounds), and their sum."""

    __slots__ = ("buckets", "total")

    def __init__(self, buckets: list[int], total: float = 0.0) -> None:
        self.buckets, self.total = buckets, total

    @property
    def count(self) -> int:
        return sum(self.buckets)


class Counter:
    """Only grows. `add` takes the values of the metric's attributes in their order."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.series: dict[Attributes, float] = {}

    def add(self, value: float = 1, *attributes: str) -> None:
        series = self.series
        if attributes not in series and len(series) >= _MOST_SERIES:
            attributes = (_OTHERS,) * len(attributes)
        series[attributes] = series.get(attributes, 0) + value


class Gauge:
    """As it is now."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.series: dict[Attributes, float] = {}

    def set(self, value: float, *attributes: str) -> None:
        if attributes in self.series or len(self.series) < _MOST_SERIES:
            self.series[attributes] = value


class Histogram:
    """Counts values by bucket. `record` takes the values of the metric's attributes in their order."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.series: dict[Attributes, Distribution] = {}
        self._bounds = metric.bounds

    def record(self, value: float, *attributes: str) -> None:
        found = self.series.get(attributes)
        if found is None:
            if len(self.series) >= _MOST_SERIES:
                attributes = (_OTHERS,) * len(attributes)
            found = self.series.setdefault(attributes, Distribution([0] * (len(self._bounds) + 1)))
        found.buckets[bisect_left(self._bounds, value)] += 1
        found.total += value


Instrument = Counter | Gauge | Histogram
_instruments: dict[str, Instrument] = {}


def counter(metric: Metric) -> Counter:
    """The process' counter of this metric."""
    found = _instruments.setdefault(metric.name, Counter(metric))
    assert isinstance(found, Counter)
    return found


def gauge(metric: Metric) -> Gauge:
    """The process' gauge of this metric."""
    found = _instruments.setdefault(metric.name, Gauge(metric))
    assert isinstance(found, Gauge)
    return found


def histogram(metric: Metric) -> Histogram:
    """The process' histogram of this metric."""
    found = _instruments.setdefault(metric.name, Histogram(metric))
    assert isinstance(found, Histogram)
    return found


def instruments() -> Iterator[Instrument]:
    """Every instrument that has counted something."""
    return (i for i in list(_instruments.values()) if i.series)


class Deltas:
    """What has come since the last call: counters and histograms as differences, gauges as they are.

    Differences add up across processes and restarts, which totals since a process' start do not.
    """

    def __init__(self) -> None:
        self._counters: dict[tuple[str, Attributes], float] = {}
        self._histograms: dict[tuple[str, Attributes], Distribution] = {}

    def take(self) -> list[tuple[Metric, Mapping[Attributes, float | Distribution]]]:
        """By metric, series that changed; those of gauges always."""
        changes: list[tuple[Metric, Mapping[Attributes, float | Distribution]]] = []
        for instrument in instruments():
            series: Mapping[Attributes, float | Distribution]
            if isinstance(instrument, Histogram):
                series = self._grown_histogram(instrument)
            elif isinstance(instrument, Counter):
                series = self._grown_counter(instrument)
            else:
                series = dict(instrument.series)
            if series:
                changes.append((instrument.metric, series))
        return changes

    def _grown_counter(self, counter: Counter) -> Mapping[Attributes, float]:
        grown = {}
        for attributes, now in list(counter.series.items()):
            key = (counter.metric.name, attributes)
            if change := now - self._counters.get(key, 0.0):
                grown[attributes] = change
            self._counters[key] = now
        return grown

    def _grown_histogram(self, histogram: Histogram) -> Mapping[Attributes, Distribution]:
        grown = {}
        for attributes, now in list(histogram.series.items()):
            key = (histogram.metric.name, attributes)
            before = self._histograms.get(key) or Distribution([0] * len(now.buckets))
            self._histograms[key] = Distribution(list(now.buckets), now.total)
            if before.buckets != now.buckets:
                buckets = [b - a for a, b in zip(before.buckets, now.buckets, strict=True)]
                grown[attributes] = Distribution(buckets, now.total - before.total)
        return grown


def prometheus_text(service: str) -> str:
    """All instruments in Prometheus' text format, totals since the process' start."""
    lines: list[str] = []
    for instrument in sorted(instruments(), key=lambda i: i.metric.name):
        metric = instrument.metric
        name = _prometheus_name(metric)
        lines += [f"# HELP {name} {metric.description}", f"# TYPE {name} {metric.kind}"]
        for attributes, value in sorted(instrument.series.items()):
            labels = {"service": service, **dict(zip(metric.attributes, attributes, strict=True))}
            if isinstance(value, Distribution):
                running = 0
                for bound, count in zip((*metric.bounds, float("inf")), value.buckets, strict=True):
                    running += count
                    upper = "+Inf" if bound == float("inf") else repr(bound)
                    lines.append(f"{name}_bucket{_labels({**labels, 'le': upper})} {running}")
                lines += [f"{name}_sum{_labels(labels)} {value.total!r}", f"{name}_count{_labels(labels)} {running}"]
            else:
                lines.append(f"{name}{_labels(labels)} {value!r}")
    return "\n".join(lines) + "\n"


def _prometheus_name(metric: Metric) -> str:
    unit = {"s": "_seconds", "By": "_bytes"}.get(metric.unit, "")
    return metric.name.replace(".", "_") + unit + ("_total" if metric.kind == "counter" else "")


def _labels(labels: Mapping[str, str]) -> str:
    parts = []
    for name, value in labels.items():
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        parts.append(f'{name.replace(".", "_")}="{escaped}"')
    return "{" + ",".join(parts) + "}"


def quantile(share: float, buckets: Sequence[int], bounds: Sequence[float]) -> float | None:
    """The value below which this share of a histogram lies, interpolated within its bucket; None when it is empty. What
    lies beyond the last bound counts as that bound."""
    total = sum(buckets)
    if not total:
        return None
    wanted, seen = share * total, 0
    for number, count in enumerate(buckets):
        if seen + count >= wanted and count:
            if number >= len(bounds):
                return bounds[-1]
            low = bounds[number - 1] if number else 0.0
            return low + (bounds[number] - low) * (wanted - seen) / count
        seen += count
    return bounds[-1]
