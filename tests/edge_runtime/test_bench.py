"""The parts of bench: plans, percentiles, warm-up, the server's queue, energy, what clean means."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orinspect_edge_runtime.bench import measure
from orinspect_edge_runtime.bench.clean import why_not_clean
from orinspect_edge_runtime.bench.energy import NOT_MEASURED, clocks_moved, energy
from orinspect_edge_runtime.bench.latency import summarize
from orinspect_edge_runtime.bench.measure import run_bench
from orinspect_edge_runtime.bench.memory import peak_resident_mib, resident_mib
from orinspect_edge_runtime.bench.plan import BenchOptions
from orinspect_edge_runtime.bench.server import WallClock, find_rate, poisson_arrivals, serve
from orinspect_edge_runtime.bench.sweep import parse_batches
from orinspect_edge_runtime.bench.warmup import MOST_WINDOWS, WINDOW_RUNS, is_stable, warm_up
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.telemetry import Reading, Recorder, Sampled, Standing, find_meter, joules


class FakeClock:
    """Time that only passes when something takes it."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def wait_until(self, moment: float) -> None:
        self.time = max(self.time, moment)

    def work(self, seconds: float) -> Callable[[], None]:
        """A call that takes that long."""

        def call() -> None:
            self.time += seconds

        return call


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scenario": "x"}, "scenario 'x' is not known: use one of single-stream, multi-stream, offline, server"),
        ({"runs": 9}, "--runs 9: at least 10"),
        ({"streams": 0}, "--streams 0: use 1 to 1024"),
        ({"batch": 5000}, "--batch 5000: use 1 to 1024"),
        ({"scenario": "server"}, "needs --rate"),
        ({"scenario": "server", "rate": -1.0}, "--rate -1.0: a number above 0"),
        ({"scenario": "server", "rate": float("nan")}, "--rate nan: a number above 0"),
        ({"scenario": "server", "find_rate": True}, "pass --bound-ms"),
        ({"rate": 5.0}, "belong to --scenario server"),
    ],
)
def test_plans_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BenchOptions(**options)


@pytest.mark.parametrize(
    ("options", "frames"),
    [({}, 1), ({"scenario": "multi-stream", "streams": 3}, 3), ({"scenario": "offline"}, 8)],
)
def test_frames_of_a_call(options: dict[str, Any], frames: int) -> None:
    assert BenchOptions(**options).frames == frames


def test_batches_are_parsed() -> None:
    assert parse_batches("1,4,4,2") == (1, 4, 2)
    for text in ("", "1,x", "0", "1;2"):
        with pytest.raises(InputError, match="batch"):
            parse_batches(text)


def test_percentiles_are_numpys() -> None:
    rounds = np.random.default_rng(0).gamma(2, 3, (13, 10))
    times = {"fp32": rounds.tolist(), "int8": (rounds / 2).tolist()}
    found = summarize("int8", times, 4, "here")
    flat = rounds.ravel() / 2
    assert (found.p50_ms, found.p90_ms, found.p99_ms) == tuple(np.percentile(flat, (50, 90, 99)))
    assert (found.least_ms, found.mean_ms) == (flat.min(), pytest.approx(flat.mean()))
    assert found.frames_per_second == pytest.approx(4e3 * flat.size / flat.sum())
    assert found.ratio_p50 == pytest.approx(2)
    assert summarize("int8", {"int8": times["int8"]}, 4, "here").ratio_p50 is None


def test_stable_means_two_small_changes_in_a_row() -> None:
    assert not is_stable([])
    assert not is_stable([1.0, 1.0])
    assert is_stable([1.0, 1.0, 1.0])
    assert is_stable([9.0, 1.0, 1.019, 1.0])
    assert not is_stable([1.0, 1.0, 1.03])
    assert not is_stable([1.0, 1.03, 1.03])


def test_warm_up_waits_for_the_times_to_settle() -> None:
    clock, calls = FakeClock(), []

    def call() -> None:
        calls.append(1)
        clock.time += 0.01 * (1 + 2 * np.exp(-len(calls) / 20))

    found = warm_up(call, clock.now)
    assert found.stable
    assert found.runs == len(calls) > 40
    assert found.last_change < 0.02


def test_warm_up_gives_up_and_says_so() -> None:
    clock, calls = FakeClock(), []

    def call() -> None:
        calls.append(1)
        clock.time += 0.001 * 1.01 ** len(calls)

    found = warm_up(call, clock.now)
    assert (found.stable, found.runs) == (False, MOST_WINDOWS * WINDOW_RUNS)

    def slower_and_slower() -> None:
        clock.time *= 1.05

    given_up = warm_up(slower_and_slower, clock.now)
    assert (given_up.stable, given_up.runs) == (False, 3 * WINDOW_RUNS)


def test_arrivals_are_poisson_and_seeded() -> None:
    arrivals = poisson_arrivals(50, 20000, 3)
    gaps = np.diff(arrivals)
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.03)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)
    assert (poisson_arrivals(50, 20000, 3) == arrivals).all()
    assert (poisson_arrivals(50, 20000, 4) != arrivals).any()


def test_an_idle_server_adds_no_waiting() -> None:
    clock = FakeClock()
    served = serve(clock.work(0.010), np.arange(1, 21) * 0.1, clock)
    assert served.latencies_ms == pytest.approx([10.0] * 20)
    assert served.waits_ms == pytest.approx([0.0] * 20)
    assert served.within(10.1) == 1


def test_a_slow_server_does_not_delay_the_arrivals() -> None:
    """Frames every 10 ms, 25 ms each: frame k waits for the 15 ms that every earlier one fell behind."""
    clock = FakeClock()
    served = serve(clock.work(0.025), np.arange(50) * 0.010, clock)
    assert served.waits_ms == pytest.approx([15.0 * k for k in range(50)], abs=1e-6)
    assert served.latencies_ms == pytest.approx([25 + 15.0 * k for k in range(50)], abs=1e-6)
    assert served.within(101) == pytest.approx(6 / 50)
    assert served.kept_fps == pytest.approx(40)


def test_the_queue_is_that_of_theory() -> None:
    """Poisson arrivals, constant service (M/D/1): the mean wait is load / (2 (1 - load)) services."""
    clock, load = FakeClock(), 0.7
    served = serve(clock.work(0.010), poisson_arrivals(load / 0.010, 60000, 1), clock)
    assert np.mean(served.waits_ms) == pytest.approx(10 * load / (2 * (1 - load)), rel=0.08)


def test_the_largest_rate_within_a_bound() -> None:
    clock = FakeClock()
    found = find_rate(clock.work(0.010), 0.010, 40.0, 4000, 0, clock)
    assert found.rate is not None
    # M/D/1 at half load: 1 % wait for more than 3.3 services.
    assert 40 < found.rate < 52
    assert all(p99 <= 40 for rate, p99 in found.tries if rate <= found.rate)
    assert found.confirmations[-1][0] == found.rate
    assert [p99 <= 40 for _, p99 in found.confirmations] == [False] * (len(found.confirmations) - 1) + [True]
    none = find_rate(clock.work(0.010), 0.010, 5.0, 200, 0, clock)
    assert (none.rate, none.confirmations) == (None, ())


def test_a_lucky_try_is_not_taken_for_the_rate() -> None:
    """A server that is twice as slow once the search is over: what kept the bound by luck has to give way."""
    clock, calls = FakeClock(), []

    def call() -> None:
        calls.append(1)
        clock.time += 0.010 if len(calls) <= 6 * 500 else 0.020

    found = find_rate(call, 0.010, 60.0, 500, 0, clock)
    kept = [rate for rate, p99 in found.tries if p99 <= 60]
    assert len(found.confirmations) > 1
    assert found.rate is not None
    assert found.rate < min(max(kept), 50)


def test_the_wall_clock_waits_until_and_not_beyond() -> None:
    clock = WallClock()
    due = clock.now() + 0.02
    clock.wait_until(due)
    assert clock.now() >= due
    clock.wait_until(due - 1)


class FakeMeter:
    """A board with a constant 8 W whose clock can be made to move."""

    def __init__(self, gpu_mhz: float = 900.0) -> None:
        self.gpu_mhz = gpu_mhz
        self.modes = ["25W", "25W"]
        self.slowed: list[str] = []

    def read(self) -> Reading:
        return Reading(8.0, {"gpu-thermal": 50.0}, self.gpu_mhz, (1500.0, 1700.0))

    def standing(self) -> Standing:
        return Standing(self.modes.pop(0))

    def throttled_between(self, before: Standing, after: Standing) -> list[str]:
        return self.slowed


def samples(watts: list[float | None], step: float = 1.0) -> list[Sampled]:
    return [Sampled(at * step, Reading(value)) for at, value in enumerate(watts)]


def test_energy_is_the_integral_over_the_spans() -> None:
    ramp = samples([0.0, 2.0, 4.0, 6.0, 8.0])
    assert joules(ramp, [(0, 4)]) == pytest.approx(16)
    assert joules(ramp, [(1.5, 2.5)]) == pytest.approx(4)
    assert joules(ramp, [(0, 1), (3, 4)]) == pytest.approx(8)
    assert joules(samples([None, None]), [(0, 1)]) is None
    assert joules(ramp, [(0, 40)]) is None
    assert joules(ramp, []) is None


def test_energy_of_an_image_needs_readings() -> None:
    found = energy(samples([10.0] * 50, 0.1), [(0.0, 4.0)], 80)
    assert found["joules"] == pytest.approx(40)
    assert found["joules_per_image"] == pytest.approx(0.5)
    few = energy(samples([10.0] * 50, 0.1), [(0.0, 0.5)], 80)
    assert few["joules"] is None
    assert "6 power readings" in few["why_not"]


def test_a_recorder_reads_until_it_is_stopped() -> None:
    with Recorder(FakeMeter(), 0.001) as recorder:
        while len(recorder.samples) < 3:
            pass
    seen = len(recorder.samples)
    assert recorder.samples[0].reading.watts == 8.0
    assert [s.at_s for s in recorder.samples] == sorted(s.at_s for s in recorder.samples)
    assert len(recorder.samples) == seen
    assert recorder.error is None


def test_a_sensor_that_breaks_ends_reading_not_measuring() -> None:
    class Broken(FakeMeter):
        def read(self) -> Reading:
            raise OSError("bus error")

    with Recorder(Broken(), 0.001) as recorder:
        pass
    assert recorder.samples == []
    assert "bus error" in str(recorder.error)


def test_clocks_count_only_while_they_are_timed() -> None:
    def reading(at: float, gpu: float | None, *cpus: float) -> dict[str, Any]:
        return {"at_s": at, "gpu_mhz": gpu, "cpu_mhz": list(cpus)}

    steady = [reading(0, 306, 700), reading(1, 918, 700, 1700), reading(2, 911, 1700), reading(3, 306, 700)]
    assert clocks_moved(steady, [(0.5, 2.5)]) == []
    assert "GPU's clock moved between 306 and 918" in str(clocks_moved(steady, [(0, 3)]))
    assert clocks_moved(steady, [(5, 6)]) is None
    assert clocks_moved([reading(1, None)], [(0, 2)]) is None


GOOD: dict[str, Any] = {
    "warm_up": {"fp32": {"runs": 15, "stable": True, "last_change": 0.001}},
    "conditions": {"load_before": 0.2, "cores_available": 6},
    "round_spans_s": {"fp32": [[1, 2], [2, 3]]},
    "telemetry": {
        "measured": True, "note": None, "throttled": [], "power_mode_before": "25W", "power_mode_after": "25W",
        "readings": [{"at_s": 1.5, "gpu_mhz": 900.0, "cpu_mhz": [1500.0]}, {"at_s": 2.5, "gpu_mhz": 900.0, "cpu_mhz": []}],
    },
}  # fmt: skip


def test_a_clean_run() -> None:
    assert why_not_clean(GOOD) == []


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("warm_up", "fp32", "stable"), False, "fp32 did not become stable in 15 warm-up calls"),
        (("conditions", "load_before"), 3.0, "the load was 3.0 before, on 6 cores"),
        (("telemetry", "readings", 1, "gpu_mhz"), 500.0, "clock moved between 500 and 900 MHz"),
        (("telemetry", "readings"), [], "no clock was read"),
        (("telemetry", "throttled"), ["thermal throttling of gpu"], "thermal throttling of gpu"),
        (("telemetry", "power_mode_after"), "15W", "power mode changed from 25W to 15W"),
        (("telemetry", "power_mode_after"), None, "did not say which power mode"),
        (("telemetry", "note"), "reading the sensors failed (x)", "reading the sensors failed"),
        (("telemetry",), {"measured": False, "note": NOT_MEASURED}, "not measured here"),
    ],
)
def test_what_makes_a_run_unclean(path: tuple[Any, ...], value: object, reason: str) -> None:
    result: Any = copy.deepcopy(GOOD)
    place = result
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (told,) = why_not_clean(result)
    assert reason in told


def test_memory_of_this_process_is_known() -> None:
    now, peak = resident_mib(), peak_resident_mib()
    assert now is not None
    assert peak is not None
    assert 1 < now <= peak


def run(bundle: Path, meter: FakeMeter | None = None, **options: Any) -> dict[str, Any]:
    return run_bench(Bundle.open(bundle), BenchOptions(runs=50, cold_starts=0, threads=1, **options), meter=meter)


def test_a_board_with_sensors_is_measured(real_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "IDLE_S", 0.01)
    monkeypatch.setattr(measure, "Recorder", lambda meter: Recorder(meter, 0.0002))
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))
    result = run(real_bundle, FakeMeter())
    seen = result["telemetry"]
    assert seen["measured"]
    assert seen["idle_watts"] == 8.0
    assert [r["watts"] for r in seen["readings"]] == [8.0] * len(seen["readings"])
    found = seen["energy"]["fp32"]
    seconds = sum(b - a for a, b in result["round_spans_s"]["fp32"])
    if found["joules"] is not None:
        assert found["joules"] == pytest.approx(8 * seconds, rel=0.05)
        assert found["joules_per_image"] == pytest.approx(found["joules"] / 50)
    assert not [reason for reason in result["why_not"] if "stable" not in reason and "clock" not in reason]
    changed = FakeMeter()
    changed.modes, changed.slowed = ["25W", "15W"], ["2 instantaneous over-current event(s)"]
    reasons = run(real_bundle, changed)["why_not"]
    assert "the power mode changed from 25W to 15W" in reasons
    assert "2 instantaneous over-current event(s)" in reasons


def test_a_desktop_says_not_measured_never_zero(real_bundle: Path) -> None:
    if find_meter() is not None:
        pytest.skip("this computer has a meter")
    result = run(real_bundle)
    assert result["telemetry"] == {"measured": False, "note": NOT_MEASURED}
    assert not result["clean"]


@pytest.mark.parametrize("scenario", ["single-stream", "multi-stream", "offline", "server"])
def test_raw_times_are_kept_in_rounds(real_bundle: Path, scenario: str) -> None:
    more = {"rate": 2000.0, "bound_ms": 1000.0} if scenario == "server" else {}
    result = run(real_bundle, scenario=scenario, **more)
    rounds = result["times_ms"]["fp32"]
    assert [len(r) for r in rounds] == [10] * 5
    (row,) = result["latencies"]
    assert row["p50_ms"] == pytest.approx(np.median(rounds), abs=1e-3)
    assert row["batch"] == result["batch"] == {"multi-stream": 4, "offline": 8}.get(scenario, 1)
    assert ("server" in result) == (scenario == "server")
    if scenario == "server":
        assert result["server"]["fp32"]["within_bound"] == 1


def test_find_rate_on_a_real_graph(real_bundle: Path) -> None:
    result = run(real_bundle, scenario="server", find_rate=True, bound_ms=200.0)
    row = result["server"]["fp32"]
    assert row["largest_rate"] == row["rate"] > 0
    assert len(row["tries"]) == 6
    none = run(real_bundle, scenario="server", find_rate=True, bound_ms=1e-6)["server"]["fp32"]
    assert none["largest_rate"] is None
    assert none["within_bound"] == 0
