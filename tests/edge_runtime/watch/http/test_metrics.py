"""/metrics, read by prometheus_client's parser and by Prometheus' own promtool."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from shutil import which
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

pytest.importorskip("starlette", reason="the extra `watch` is not installed")
pytest.importorskip("prometheus_client", reason="the extra `watch` is not installed")

from prometheus_client import parser
from site_of_tests import TOKEN, free_port, wait_for

from orinspect_edge_runtime.watch.latency import Latency

Site = Any


def samples(site: Site) -> dict[tuple[str, ...], float]:
    text = site.ask("GET", "/metrics").body.decode()
    families = parser.text_string_to_metric_families(text)
    return {(s.name, *sorted(s.labels.values())): s.value for family in families for s in family.samples}


def test_the_numbers_are_those_of_the_loop(site: Site) -> None:
    found = samples(site)
    assert found["orinspect_frames_total", "accept"] == 2
    assert found["orinspect_frames_total", "reject"] == 1
    assert found["orinspect_frames_total", "failed"] == found["orinspect_frames_dropped_total",] == 0
    assert found["orinspect_latency_seconds_count",] == found["orinspect_latency_seconds_bucket", "+Inf"] == 3
    assert 0 < found["orinspect_latency_seconds_sum",] < 60
    assert found["orinspect_sink_trouble", "journal"] == found["orinspect_camera_alarm", "lost"] == 0
    (reject,) = site.get("/api/verdicts?outcome=reject")["verdicts"]
    assert found["orinspect_score",] == pytest.approx(reject["score"])
    assert found["orinspect_threshold",] == pytest.approx(reject["threshold"])
    assert any(name[0] == "orinspect_build_info" for name in found)
    recipe = site.watch.judge.detector.recipe
    wanted = tuple(sorted(["part", "patchcore", "fp32", recipe.graph_sha256[:12]]))
    assert found[("orinspect_recipe_info", *wanted)] == 1


def test_buckets_are_cumulative_and_their_edges_exact() -> None:
    latency = Latency()
    for edge, _ in latency.cumulative(5):
        latency.add(edge * (1 - 1e-9))
    counts = [count for _, count in latency.cumulative(5)]
    assert counts == list(range(1, len(counts) + 1))
    assert latency.total_ms == pytest.approx(sum(edge for edge, _ in latency.cumulative(5)))


def test_promtool_finds_no_fault(site: Site) -> None:
    if which("promtool") is None:
        pytest.skip("NOT TESTED with promtool: apt install prometheus")
    ran = subprocess.run(
        ["promtool", "check", "metrics"], input=site.ask("GET", "/metrics").body, capture_output=True, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")


def test_a_real_prometheus_scrapes_it(open_site: Callable[..., Site], tmp_path: Path) -> None:
    if which("prometheus") is None:
        pytest.skip("NOT TESTED with Prometheus: apt install prometheus")
    site, port = open_site(token=TOKEN), free_port()
    (tmp_path / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s}\nscrape_configs:\n  - job_name: line\n"
        f"    authorization: {{credentials: {TOKEN}}}\n    static_configs: [{{targets: ['127.0.0.1:{site.port}']}}]\n"
    )
    command = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
    command.append(f"--web.listen-address=127.0.0.1:{port}")

    def queried(query: str) -> Any:
        try:
            with urlopen(f"http://127.0.0.1:{port}/api/v1/query?query={query}", timeout=30) as answer:
                return [row["value"][1] for row in json.load(answer)["data"]["result"]]
        except URLError:
            return []

    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) as prometheus:
        try:
            wait_for(lambda: queried("up") == ["1"])
            wait_for(lambda: queried("orinspect_frames_total%7Boutcome=%22accept%22%7D") == ["0"])
            site.watch.outcomes["accept"] = 7
            wait_for(lambda: queried("orinspect_frames_total%7Boutcome=%22accept%22%7D") == ["7"])
            assert queried("orinspect_latency_seconds_count") == ["0"]
        finally:
            prometheus.kill()
