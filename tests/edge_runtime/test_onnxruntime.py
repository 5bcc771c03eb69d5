"""onnxruntime runs where it was asked to run, or says why not; never on the CPU in place of a GPU."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from orinspect_edge_runtime.backends import open_backend
from orinspect_edge_runtime.backends.onnxruntime import PROVIDERS, OnnxRuntimeBackend
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.detector import Detector
from orinspect_edge_runtime.errors import BundleError, InputError
from orinspect_edge_runtime.heads import neutral_inputs

GPU_NAMES = [name for name in PROVIDERS if name != "onnxruntime"]


def graph_of(path: Path) -> tuple[Bundle, Any, bytes]:
    bundle = Bundle.open(path)
    spec = bundle.manifest.graphs[0]
    return bundle, spec, bundle.read(spec.file)


@pytest.mark.parametrize("name", GPU_NAMES)
def test_a_gpu_this_onnxruntime_does_not_know_is_an_error_with_a_way_out(name: str, real_bundle: Path) -> None:
    _, spec, graph = graph_of(real_bundle)
    if PROVIDERS[name][0] in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime knows the GPU")
    with pytest.raises(InputError, match=r"this onnxruntime has .*CPUExecutionProvider.*pip install onnxruntime-gpu"):
        open_backend(graph, spec, name=name)


@pytest.mark.parametrize("name", GPU_NAMES)
def test_a_session_that_would_fall_back_to_the_cpu_is_refused(
    name: str, real_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wheel that promises the provider and cannot load it: onnxruntime itself would go on, on the CPU."""
    _, spec, graph = graph_of(real_bundle)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(PROVIDERS[name]))
    with pytest.warns(UserWarning), pytest.raises(InputError, match=rf"--backend {name} cannot run .* on the GPU"):
        open_backend(graph, spec, name=name)


def test_the_description_names_what_runs(real_bundle: Path) -> None:
    bundle, spec, graph = graph_of(real_bundle)
    with open_backend(graph, spec, name="onnxruntime") as backend:
        assert backend.description == f"onnxruntime {onnxruntime.__version__}, CPUExecutionProvider"
    with open_backend(graph, spec, name="auto", bundle=bundle.path) as backend:
        assert backend.description.endswith("(no engine was built)")


def test_an_unknown_backend_is_told_the_known_ones(real_bundle: Path) -> None:
    _, spec, graph = graph_of(real_bundle)
    with pytest.raises(InputError, match="use one of auto, tensorrt, onnxruntime, ort-cuda, ort-trt"):
        open_backend(graph, spec, name="cuda")


def test_bytes_that_are_no_graph_are_the_bundles_fault(real_bundle: Path) -> None:
    _, spec, _ = graph_of(real_bundle)
    with pytest.raises(BundleError, match="onnxruntime refuses it"):
        OnnxRuntimeBackend(b"no graph", spec)


def test_throughput_takes_as_many_callers_as_threads(real_bundle: Path) -> None:
    bundle, spec, graph = graph_of(real_bundle)
    frames = np.zeros((1, bundle.manifest.preprocess.height, bundle.manifest.preprocess.width, 3), np.uint8)
    scores = []
    for throughput, callers in ((False, 1), (True, 3)):
        with open_backend(graph, spec, threads=3, throughput=throughput) as backend:
            assert backend.concurrency == callers
            backend.set_inputs(neutral_inputs(spec.head, bundle.manifest.encoder))
            scores.append(backend.run(frames)["score"])
    np.testing.assert_allclose(*scores, rtol=1e-5)


def test_a_recipe_fitted_elsewhere_is_told(
    real_bundle: Path, pictures: Path, tmp_path: Path, orinspect: Callable[..., Any]
) -> None:
    place = tmp_path / "bundle"
    shutil.copytree(real_bundle, place)
    assert orinspect("fit", place, pictures / "train/good", "--recipe", "here").code == 0
    bundle = Bundle.open(place)
    bundle.add_recipe(dataclasses.replace(bundle.recipe("here"), name="moved", backend="TensorRT 10.3.0, Orin NX"))
    with Detector.load(place, "here") as detector:
        assert detector.fitted_elsewhere is None
    ran = orinspect("score", place, pictures / "train/good", "--recipe", "moved")
    assert "recipe 'moved' was fitted on TensorRT and runs on onnxruntime: fit it here" in ran.err
