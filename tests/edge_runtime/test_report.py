"""The report: one HTML file that needs nothing else, runs nothing, and shows file names as text."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("jinja2", reason="the extra `report` is not installed")
pytest.importorskip("matplotlib", reason="the extra `report` is not installed")

from orinspect_edge_runtime import report
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.dataset import read_dataset
from orinspect_edge_runtime.detector import Detector
from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.evaluate import evaluate
from orinspect_edge_runtime.labelled import LabelledImage
from orinspect_edge_runtime.report import Page, Picture, Table

HOSTILE = "<img src=x onerror=alert(1)>\"'&{{7*7}}{% raw %}"
PIXEL = "data:image/png;base64,AAAA"
VOID = {"meta", "img", "br", "link", "path", "use", "rect", "input", "hr"}


class Reader(HTMLParser):
    """Collects tags, attributes and text; fails on tags that are not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def self_contained(html: str) -> Reader:
    """No script, no handler, nothing fetched: references are data URIs or within the page."""
    page = Reader(html)
    for tag, attributes in page.tags:
        assert tag not in ("script", "iframe", "object", "embed", "link", "base", "form")
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
                assert (value or "").startswith(("data:image/png;base64,", "#")), (tag, name, value)
    assert "@import" not in html
    assert not re.search(r"url\(\s*[\"']?(?!#)", html)
    return page


def written(tmp_path: Path, page: Page) -> str:
    report.write_report(tmp_path / "new/report.html", page)
    return (tmp_path / "new/report.html").read_text("utf-8")


FULL = Page(
    title=HOSTILE,
    lead=HOSTILE,
    facts=((HOSTILE, HOSTILE),),
    figures=((HOSTILE, "<svg><text>curve</text></svg>"),),
    pictures=(Picture(PIXEL, PIXEL, HOSTILE, True, False), Picture(PIXEL, PIXEL, "plain", False, True)),
    tables=(Table(HOSTILE, (HOSTILE,), ((HOSTILE,), ("cell",)), HOSTILE), Table("bare", (), ())),
    notes=(HOSTILE,),
    footer=HOSTILE,
    commands=(f"orinspect fit '{HOSTILE}'",),
)


def test_hostile_text_is_shown_and_never_run(tmp_path: Path) -> None:
    page = self_contained(written(tmp_path, FULL))
    # Title twice, lead, fact (2), figure, picture, table (4), note, footer and command.
    assert page.text.count(HOSTILE) == 14
    assert [attributes["alt"] for tag, attributes in page.tags if tag == "img"] == [
        HOSTILE, f"heat map of {HOSTILE}", "plain", "heat map of plain",
    ]  # fmt: skip
    assert "curve" in page.text


def test_the_smallest_page(tmp_path: Path) -> None:
    page = self_contained(written(tmp_path, Page("title", "lead")))
    assert {"h2", "img", "table", "pre", "ul"}.isdisjoint(tag for tag, _ in page.tags)


def test_a_file_name_that_is_no_text_does_not_stop_the_report(tmp_path: Path) -> None:
    html = written(tmp_path, Page("title", b"\xff.png".decode(errors="surrogateescape"), footer="ä · 子"))
    assert "\\udcff.png" in html
    assert "ä · 子" in html


def test_equal_pages_give_equal_files(tmp_path: Path) -> None:
    assert written(tmp_path, FULL) == written(tmp_path, dataclasses.replace(FULL))


@pytest.fixture
def detector(real_bundle: Path, tiny_recipe: Callable[..., Any], tmp_path: Path) -> Any:
    bundle = Bundle.open(copytree(real_bundle, tmp_path / "bundle"))
    digest = bundle.manifest.files["graphs/patchcore-fp32.onnx"].sha256
    bundle.add_recipe(tiny_recipe(graph_sha256=digest, threshold=0.9, false_alarm_note=HOSTILE))
    with Detector.load(bundle.path) as loaded:
        yield loaded


def test_the_page_of_an_evaluation(detector: Any, pictures: Path, tmp_path: Path) -> None:
    images = read_dataset(pictures)
    hostile = tmp_path / "<img src=x onerror=alert(1)>.png"
    hostile.write_bytes(images[-1].path.read_bytes())
    evaluation = evaluate(detector, [*images, LabelledImage(hostile, "<b>blot</b>", True)])
    html = written(tmp_path, report.evaluation_page(evaluation, detector, "DATA <i>"))
    page = self_contained(html)
    for text in (
        "DATA <i>",
        HOSTILE,
        hostile.stem,
        "<b>blot</b>",
        "1.000",
        "image AUROC",
        "Score histogram",
        "ROC curve",
    ):
        assert text in page.text
    pictures_shown = [attributes["src"] or "" for tag, attributes in page.tags if tag == "img"]
    assert len(pictures_shown) == 2 * min(report.WORST_SHOWN, len(evaluation.images))
    for uri in pictures_shown:
        content = base64.b64decode(uri.partition(",")[2], validate=True)
        assert Image.open(io.BytesIO(content)).format == "PNG"
    tags = [attributes.get("class") for tag, attributes in page.tags if tag == "span" and "class" in attributes]
    assert tags[:6] == ["tag bad"] * 6, "the most anomalous come first"


def test_pictures_show_the_heat_map_where_the_blot_is(detector: Any, pictures: Path) -> None:
    evaluation = evaluate(detector, read_dataset(pictures))
    (worst,) = report.worst_pictures(evaluation, detector, 1)
    plain, drawn = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))), int)
        for uri in (worst.image, worst.heat_map)
    )
    changed = np.abs(plain - drawn).sum(axis=2)
    assert worst.is_defective
    assert worst.is_anomalous
    assert changed[10:22, 12:24].mean() > 3 * changed[30:, :].mean()


METRICS = "step,loss,embedding_std,effective_rank\n1,2.5,0.9,30\n2,1.5,0.8,31\n"


def test_training_curves(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(METRICS)
    figures = report.training_figures(tmp_path)
    assert [title for title, _ in figures] == [f"Pretraining: {name}" for _, name in report.TRAINING_CURVES]
    assert all(svg.startswith("<svg") for _, svg in figures)


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        METRICS.splitlines()[0].encode(),
        b"step,loss\n1,2\n",
        METRICS.encode() + b"3,1.0\n",
        METRICS.encode() + b"3,x,1,1\n",
        b"\xff\xfe\0\0",
        METRICS.replace("2.5", "").encode(),
    ],
)
def test_training_curves_of_a_damaged_run(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "metrics.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"metrics\.csv: missing or damaged"):
        report.training_figures(tmp_path)


def test_the_latency_table_carries_its_conditions() -> None:
    row = {"precision": "int8", "p50_ms": 1.234, "p90_ms": 2, "p99_ms": 3, "frames_per_second": 99.6, "runs": 40}
    bench = {
        "scenario": "single-stream",
        "measures": "graph only",
        "encoder": "tiny",
        "model_size": [32, 64],
        "head": "padim",
        "bank_rows": 0,
        "latencies": [row | {"ratio_p50": 2.0, "runs_on": "here"}, row | {"ratio_p50": None, "runs_on": "here"}],
        "conditions": {
            "machine": "Some CPU", "threads": 1, "load_before": 0.5, "python": "3.x", "versions": {"numpy": "2"},
            "measured_at": "2026-01-01",
        },
    }  # fmt: skip
    table = report.latency_table(bench)
    assert table.rows[0] == ("int8", "1.23", "2.00", "3.00", "100", "2.00x", "here")
    assert table.rows[1][5] == "-"
    assert len(table.head) == len(table.rows[0])
    for part in ("Some CPU", "64x32 pixels", "40 runs", "1 threads", "load 0.5", "numpy 2", "Not a Jetson figure"):
        assert part in table.caption


def test_a_missing_extra_is_told_before_anything_is_scored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, orinspect: Callable[..., Any]
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    told = orinspect("evaluate", tmp_path / "no bundle", tmp_path / "no images", "--report", tmp_path / "report")
    assert told.code == 2
    assert "pip install 'orinspect[report]'" in told.err
    assert not (tmp_path / "report").exists()
