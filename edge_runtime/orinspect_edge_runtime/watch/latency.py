"""A latency histogram of fixed size: buckets a tenth of an octave wide, from 10 us to 20 minutes."""

from __future__ import annotations

import math

PER_OCTAVE, LEAST_MS, BUCKETS = 10, 0.01, 270


class Latency:
    """Counts durations; `percentile_ms` is exact to 7 %."""

    def __init__(self) -> None:
        self.count, self.total_ms = 0, 0.0
        self._buckets = [0] * BUCKETS

    def add(self, latency_ms: float) -> None:
        """Count one duration."""
        place = math.ceil(PER_OCTAVE * math.log2(max(latency_ms, LEAST_MS) / LEAST_MS))
        self._buckets[min(place, BUCKETS - 1)] += 1
        self.count += 1
        self.total_ms += max(latency_ms, 0.0)

    def percentile_ms(self, percent: float) -> float:
        """Upper edge of the bucket that holds the percentile; 0 before the first one."""
        wanted, seen = self.count * percent / 100, 0
        for place, number in enumerate(self._buckets):
            seen += number
            if number and seen >= wanted:
                return float(LEAST_MS * 2 ** (place / PER_OCTAVE))
        return 0.0

    def percentiles_ms(self) -> dict[str, float]:
        """p50, p90 and p99."""
        return {f"p{percent}": round(self.percentile_ms(percent), 3) for percent in (50, 90, 99)}

    def cumulative(self, every: int) -> list[tuple[float, int]]:
        """Upper edge in ms of every so many-th bucket, and how many durations lie at or below it."""
        edges = range(0, BUCKETS - 1, every)
        return [(LEAST_MS * 2 ** (place / PER_OCTAVE), sum(self._buckets[: place + 1])) for place in edges]
