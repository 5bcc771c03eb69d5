"""Properties that hold whatever the coefficients: more work, slower hardware or more bytes never take less time."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orinspect_edge_runtime.errors import InputError
from orinspect_jetson.predictor.fitting import Sample, fit, log_ratio, prior
from orinspect_jetson.predictor.layers import published_tables
from orinspect_jetson.predictor.operating_point import DEVICES, OperatingPoint, all_points, operating_point
from orinspect_jetson.predictor.prediction import coefficients, predict
from orinspect_jetson.predictor.roofline import HARNESSES, PRECISIONS, breakdown, load_of, totals, work_of

tables = st.sampled_from(["resnet50", "YOLO11n", "EfficientViT-B1 cls 224", "SmolVLA vision tower"])
points = st.sampled_from(sorted(all_points(), key=lambda p: p.label))
precisions = st.sampled_from(PRECISIONS)


def milliseconds(name: str, point: OperatingPoint, precision: str, batch: int = 1, harness: str = "engine") -> float:
    work = work_of(published_tables()[name], precision, batch)
    return breakdown(work, point, coefficients().values, harness).total_ms


@settings(max_examples=50, deadline=None)
@given(tables, points, precisions, st.integers(1, 8))
def test_monotonic(name: str, point: OperatingPoint, precision: str, batch: int) -> None:
    here = milliseconds(name, point, precision, batch)
    assert here > 0
    assert milliseconds(name, point, precision, batch + 1) > here
    for field in ("sm", "gpu_mhz", "bandwidth_gb_s"):
        faster = dataclasses.replace(point, **{field: getattr(point, field) * 2})
        assert milliseconds(name, faster, precision, batch) <= here * (1 + 1e-9)


@given(tables, points)
@settings(max_examples=25, deadline=None)
def test_fewer_bits_are_not_slower(name: str, point: OperatingPoint) -> None:
    fp32, fp16, int8 = (milliseconds(name, point, precision) for precision in PRECISIONS)
    assert fp32 > fp16 >= int8 * 0.98


def test_graph_replay_saves_launches() -> None:
    point = operating_point("orin-nano-8", "7W")
    assert milliseconds("resnet50", point, "int8", harness="graph") < milliseconds("resnet50", point, "int8")


def test_parts_add_up_and_totals_agree() -> None:
    point = operating_point("agx-orin-64", "50W")
    works = [work_of(published_tables()[name], "fp16", 2) for name in ("resnet50", "YOLO26n")]
    for harness in HARNESSES:
        together = totals(load_of(works, [point] * 2, [harness] * 2), prior())
        for work, total in zip(works, together, strict=True):
            part = breakdown(work, point, prior(), harness)
            gpu = part.compute_ms + part.memory_ms + part.gap_ms
            assert part.total_ms == pytest.approx(total)
            assert sum(part.by_kind) == pytest.approx(gpu)
            both = (gpu**4 + part.enqueue_ms**4) ** 0.25
            assert part.total_ms == pytest.approx(part.fixed_ms + both)


def test_fit_finds_the_coefficients_that_made_the_rows() -> None:
    truth = prior() * 1.3
    samples = []
    for point in all_points():
        for name in ("resnet50", "YOLO11s", "EfficientViT-B1 cls 224", "SmolVLA vision tower"):
            work = work_of(published_tables()[name], "fp16", 1)
            latency = breakdown(work, point, truth, "engine").total_ms
            samples.append(Sample(work, point, "engine", latency))
    assert np.median(np.abs(log_ratio(samples, prior()))) > 0.1
    assert np.median(np.abs(log_ratio(samples, fit(samples)))) < 0.01


def test_one_wild_row_does_not_move_the_fit() -> None:
    point = operating_point("orin-nx-16", "MAXN")
    names = ("resnet50", "YOLO11s", "YOLO11m", "YOLO26n", "YOLO26l", "EfficientViT-B1 cls 224")
    works = [work_of(published_tables()[name], "fp16", 1) for name in names]
    samples = [Sample(work, point, "engine", breakdown(work, point, prior(), "engine").total_ms) for work in works]
    wild = [*samples, dataclasses.replace(samples[0], latency_ms=samples[0].latency_ms * 20)]
    assert np.abs(log_ratio(samples, fit(wild))).max() < 0.15


def test_no_rows_leave_the_prior() -> None:
    assert fit([]) == pytest.approx(prior())


def test_operating_points_are_those_of_the_power_table() -> None:
    point = operating_point("orin-nx-16", "25W")
    assert (point.sm, point.gpu_mhz, point.bandwidth_gb_s, point.is_super) == (8, 408, 102.4, False)
    assert operating_point("orin-nx-16", "10W").sm == 4
    assert operating_point("orin-nano-8", "15W").gpu_mhz == 625
    assert operating_point("orin-nano-8-super", "15W").gpu_mhz == 612
    assert operating_point("orin-nano-8", "MAXN_SUPER").fp16_tflops == pytest.approx(16.7, abs=0.1)
    assert operating_point("agx-orin-64").mode == "MAXN"
    assert operating_point("agx-orin-64", "mode_30w").nominal_w == 30
    assert {p.device for p in all_points()} == set(DEVICES)


@pytest.mark.parametrize(
    ("device", "mode", "hint"),
    [("orin-nx", None, "did you mean orin-nx"), ("orin-nx-16", "99W", "it has: MAXN"), ("thor", None, "known: ")],
)
def test_unknown_devices_and_modes(device: str, mode: str | None, hint: str) -> None:
    with pytest.raises(InputError, match=hint):
        operating_point(device, mode)


def test_a_prediction_is_whole() -> None:
    point = operating_point("orin-nano-4", "10W")
    known = predict(published_tables()["resnet50"], point, "int8", batch=4)
    new = predict(dataclasses.replace(published_tables()["resnet50"], family=""), point, "int8", batch=4)
    for estimate in (known.latency_ms, known.throughput, known.board_w, known.energy_mj, known.memory_mb):
        assert 0 < estimate.low < estimate.value < estimate.high
    assert known.throughput.value == pytest.approx(4e3 / known.latency_ms.value)
    assert known.energy_mj.value == pytest.approx(known.board_w.value * known.latency_ms.value / 4)
    assert new.latency_ms.high > known.latency_ms.high
    assert known.fits_memory
    huge = dataclasses.replace(published_tables()["resnet50"], parameters=4 * 10**9)
    assert not predict(huge, point, "fp16").fits_memory
    for options in ({"precision": "fp8"}, {"batch": 0}):
        with pytest.raises(InputError):
            predict(published_tables()["resnet50"], point, **options)  # type: ignore[arg-type]
