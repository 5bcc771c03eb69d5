"""Charts: well-formed SVG, the same bytes for the same data, and no data that breaks them."""

from __future__ import annotations

import re
import warnings
import xml.etree.ElementTree as ET

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="the extra `report` is not installed")

from orinspect_edge_runtime import charts

SVG = "{http://www.w3.org/2000/svg}"
FPR, TPR = np.array([0, 0.2, 1.0]), np.array([0, 0.8, 1.0])


def texts(svg: str) -> list[str]:
    root = ET.fromstring(svg)  # our own output, not a stranger's
    assert root.tag == f"{SVG}svg"
    return ["".join(node.itertext()) for node in root.iter(f"{SVG}text")]


def drawn() -> list[str]:
    rng = np.random.default_rng(0)
    return [
        charts.line_chart([0, 1, 2], {"loss": [3, 2, 1], "rank": [1, 2, 3]}, "step", "value"),
        charts.roc_chart({"fp32 0.900": (FPR, TPR), "int8 0.800": (FPR, TPR)}),
        charts.score_histogram(rng.normal(0, 1, 50), rng.normal(4, 1, 20), 2.5),
        charts.bar_chart({"fp32": 1.0, "fp16": 0.51, "int8": 0.26}, "ms"),
    ]


DRAWN = drawn()


def test_equal_data_gives_equal_bytes() -> None:
    assert drawn() == DRAWN


def test_other_data_gives_another_chart() -> None:
    assert charts.bar_chart({"a": 1.0}, "ms") != charts.bar_chart({"a": 2.0}, "ms")


def test_names_and_labels_are_text() -> None:
    line, roc, histogram, bars = map(texts, DRAWN)
    assert {"loss", "rank", "step", "value"} <= set(line)
    assert {"fp32 0.900", "int8 0.800", "good images called defective", "defective images found"} <= set(roc)
    assert {"good (50)", "defective (20)", "threshold 2.50", "share of images"} <= set(histogram)
    assert {"fp32", "fp16", "int8", "ms"} <= set(bars)
    assert {"1", "0.51", "0.26"} <= {text.strip() for text in bars}


@pytest.mark.parametrize("svg", DRAWN)
def test_charts_are_self_contained(svg: str) -> None:
    assert svg.startswith("<svg")
    assert "<script" not in svg
    assert not re.search(r"""(?:href|src)\s*=\s*["'](?!#)""", svg)
    assert "url(http" not in svg
    assert not re.search(r"20\d\d-\d\d-\d\dT", svg), "no date"


HOSTILE = ["<script>alert(1)</script>", "a & b", '"quoted"', "$\\frac{", "100 $ and $ more", "$\\no$", "ä 子", "]]>"]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_shown_as_they_are(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a missing glyph only matters where text is measured
        shown = [
            texts(charts.line_chart([0, 1], {name: [0, 1], "other": [1, 0]}, name, name)),
            texts(charts.roc_chart({name: (FPR, TPR)})),
            texts(charts.bar_chart({name: 1.0, "other": 2.0}, name)),
        ]
    assert [name in (text.strip() for text in chart) for chart in shown] == [True] * 3


def test_many_lines_reuse_the_colours() -> None:
    names = [f"line {number}" for number in range(len(charts.COLOURS) + 3)]
    assert set(names) <= set(texts(charts.line_chart([0, 1], dict.fromkeys(names, (0, 1)), "x", "y")))
    assert set(names) <= set(texts(charts.roc_chart(dict.fromkeys(names, (FPR, TPR)))))


EMPTY = np.zeros(0)


@pytest.mark.parametrize(
    ("good", "bad", "threshold"),
    [
        (np.zeros(5), np.zeros(5), 0.0),
        (np.full(5, -1.0), np.full(5, -1.0), -1.0),
        (np.array([1.0]), EMPTY, 2.0),
        (EMPTY, np.array([1.0]), 2.0),
        (EMPTY, EMPTY, 1.0),
        (np.array([0.0, 1e9]), np.array([-1e9]), 1e-9),
        (np.array([1e-300]), np.array([2e-300]), 0.0),
        (np.array([-3.0, -2.0]), np.array([-1.0]), -10.0),
    ],
)
def test_histograms_of_odd_scores(good: np.ndarray, bad: np.ndarray, threshold: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shown = texts(charts.score_histogram(good, bad, threshold))
    assert {f"good ({len(good)})", f"defective ({len(bad)})", f"threshold {threshold:.2f}"} <= set(shown)


@pytest.mark.parametrize("values", [[], [1.0], [float("nan"), 1.0], [1.0, 1.0]])
def test_short_and_flat_lines(values: list[float]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "step" in texts(charts.line_chart(range(len(values)), {"loss": values}, "step", "loss"))
