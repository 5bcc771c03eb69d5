"""The published rows, what the audit says of them, and that the packaged fit is the one they give."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from orinspect_jetson.predictor.audit import IMPOSSIBLE, TOO_FAST, audit, is_impossible, sound_rows
from orinspect_jetson.predictor.calibration import NEW, held_out, interval_factors
from orinspect_jetson.predictor.fitting import fit, log_ratio
from orinspect_jetson.predictor.operating_point import operating_point
from orinspect_jetson.predictor.prediction import coefficients
from orinspect_jetson.predictor.published import Row, cells, published_rows
from orinspect_jetson.predictor.roofline import HARNESSES, PRECISIONS


@pytest.fixture(scope="module")
def sound() -> list[Row]:
    rows = cells(published_rows())
    return sound_rows(rows, audit(rows))


def test_every_row_is_complete() -> None:
    assert len(published_rows()) > 100
    for row in published_rows():
        assert row.source
        assert row.family
        assert operating_point(row.device, row.mode)
        assert row.precision in PRECISIONS
        assert row.harness in HARNESSES
        assert row.latency_ms > 0


def test_replicates_make_one_cell() -> None:
    one = published_rows()[0]
    pair = cells([one, dataclasses.replace(one, latency_ms=one.latency_ms * 4)])
    assert [(row.replicates, row.latency_ms) for row in pair] == [(2, pytest.approx(one.latency_ms * 2))]


def test_audit_names_the_rows_of_another_mode_and_of_other_work() -> None:
    found = {(f.device, f.family): f for f in audit(cells(published_rows()))}
    moved = found["orin-nx-16", "YOLO26"]
    assert (moved.verdict, moved.mode, moved.fits) == (TOO_FAST, "MAXN", "MAXN_SUPER")
    assert found["agx-orin-64", "BERT-large"].verdict == IMPOSSIBLE
    assert not [f for f in found.values() if f.verdict == TOO_FAST and f is not moved]


@pytest.mark.parametrize(
    ("family", "true", "label"), [("YOLO11", "MAXN_SUPER", "15W"), ("YOLO26", "MAXN_SUPER", "15W")]
)
def test_audit_finds_a_label_that_was_swapped(sound: list[Row], family: str, true: str, label: str) -> None:
    swapped = [
        dataclasses.replace(row, mode=label)
        if (row.family, row.device, row.mode) == (family, "orin-nano-8", true)
        else row
        for row in sound
    ]
    found = [f for f in audit(swapped) if f.verdict == TOO_FAST and f.family == family]
    assert [(f.device, f.mode) for f in found] == [("orin-nano-8", label)]
    assert found[0].fits in (true, "25W")


def test_faster_than_the_peak_is_impossible() -> None:
    row = next(r for r in published_rows() if r.table == "YOLO26x")
    assert not is_impossible(row)
    assert is_impossible(dataclasses.replace(row, latency_ms=row.latency_ms / 10))


def test_packaged_coefficients_are_the_fit_of_the_packaged_rows(sound: list[Row]) -> None:
    assert coefficients().values == pytest.approx(fit([row.sample() for row in sound]), rel=0.01)
    assert coefficients().factors == pytest.approx(interval_factors(sound), rel=0.02)


def test_errors_on_families_and_devices_not_seen(sound: list[Row]) -> None:
    for key in (lambda row: row.family, lambda row: row.device):
        errors = held_out(sound, key)
        assert np.median(np.abs(np.expm1(errors))) < 0.20
        assert np.mean(np.abs(errors) < np.log(coefficients().factors[NEW])) >= 0.85


def test_held_out_rows_are_not_fitted(sound: list[Row]) -> None:
    errors = held_out(sound, lambda row: row.family)
    fitted = log_ratio([row.sample() for row in sound], coefficients().values)
    retina = [i for i, row in enumerate(sound) if row.family == "RetinaNet"]
    assert np.abs(errors[retina]).min() > np.abs(fitted[retina]).max()
