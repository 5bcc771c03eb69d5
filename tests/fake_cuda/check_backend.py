"""The TensorRT backend on a real CUDA library over the fake driver. Run by tests/edge_runtime/test_tensorrt.py.

Needs a process of its own: FAKE_CUDA names the compiled driver, CUDA_LIBRARY the library under test.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import gc
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fake_tensorrt
import numpy as np
import pytest
from fake_tensorrt import recording

import fake_cuda
from orinspect_edge_runtime import golden
from orinspect_edge_runtime.backends import open_backend
from orinspect_edge_runtime.backends.cuda_memory import CudaError
from orinspect_edge_runtime.backends.onnxruntime import OnnxRuntimeBackend
from orinspect_edge_runtime.backends.searching import SearchingEngine
from orinspect_edge_runtime.backends.tensorrt import TensorRTBackend
from orinspect_edge_runtime.bank_rule import BankRule
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.device import RECORDING
from orinspect_edge_runtime.engine import Engine
from orinspect_edge_runtime.errors import BundleError, CheckFailed, InputError, OrinspectError, RecipeError
from orinspect_edge_runtime.features import Features, score_features
from orinspect_edge_runtime.passport import EnginePassport
from orinspect_edge_runtime.scorers import SCORERS
from orinspect_edge_runtime.scorers.patchcore import bank_columns
from orinspect_export.builder import BuildOptions, build_engine
from orinspect_export.memory_limits import Effort
from orinspect_export.profiles import ranges_for

LIBRARY = os.environ["CUDA_LIBRARY"]
DRIVER = fake_cuda.FakeDriver(Path(os.environ["FAKE_CUDA"]))
recording.launch = DRIVER.launch
HAS_GRAPHS = LIBRARY == "cuda-python"


every_version = pytest.mark.parametrize("trt", fake_tensorrt.VERSIONS, indirect=True)


@pytest.fixture
def trt(request: pytest.FixtureRequest) -> Any:
    return fake_tensorrt.load(getattr(request, "param", "tensorrt-10.3.0"))


@pytest.fixture(scope="session")
def bundle(real_bundle: Path) -> Bundle:
    return Bundle.open(real_bundle)


@pytest.fixture
def recorded(bundle: Bundle) -> dict[str, Any]:
    return golden.read_golden(bundle)


@pytest.fixture
def inputs(recorded: dict[str, Any]) -> dict[str, Any]:
    return golden.head_arrays(recorded, "patchcore")


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    yield
    DRIVER.fail(0)
    DRIVER.set_capacity(8 << 30)
    gc.collect()
    assert DRIVER.live() == {}
    assert DRIVER.used() == 0
    assert DRIVER.depth() == 0


def make_engine(trt: Any, bundle: Bundle, batch: int = 4) -> Engine:
    spec = bundle.manifest.graphs[0]
    onnx = bundle.read(spec.file)
    options = BuildOptions(spec.inputs, ranges_for(batch=batch), Effort(64, 64, 1))
    built = build_engine(trt, onnx, options, lambda *step: None)
    plan = bytes(built.plan)
    passport = EnginePassport(
        *(
            "p3767-0003",
            "Jetson Orin Nano 8GB",
            "36.4.3",
            trt.__version__,
            "12.6",
            "8.7",
            8,
            "MAXN",
            "fp32",
            "patchcore",
        ),
        onnx_sha256=hashlib.sha256(onnx).hexdigest(),
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        plan_bytes=len(plan),
        inputs=spec.inputs,
        outputs=spec.outputs,
        profile=dict(built.ranges),
        least_cosine=1.0,
        rank_correlation=1.0,
        created_with="test",
        kind=RECORDING,
    )
    return Engine(Path("engines"), plan, passport)


@pytest.fixture
def opened(trt: Any, bundle: Bundle) -> Callable[..., TensorRTBackend]:
    def open_one(**options: Any) -> TensorRTBackend:
        return TensorRTBackend(make_engine(trt, bundle), bundle.manifest.graphs[0], trt=trt, memory=LIBRARY, **options)

    return open_one


@pytest.fixture
def truth(bundle: Bundle, inputs: dict[str, Any], recorded: dict[str, Any]) -> Iterator[Callable[..., Any]]:
    spec = bundle.manifest.graphs[0]
    with OnnxRuntimeBackend(bundle.read(spec.file), spec, threads=1) as reference:
        reference.set_inputs(inputs)
        yield reference.run


def same(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    return set(ours) == set(theirs) and all(np.allclose(ours[n], theirs[n], atol=1e-5) for n in theirs)


@every_version
def test_it_reproduces_golden_on_every_version(
    opened: Callable[..., TensorRTBackend], bundle: Bundle, recorded: dict[str, Any]
) -> None:
    with opened() as backend:
        backend.set_inputs(golden.head_arrays(recorded, "patchcore"))
        outputs = [backend.run(frame[None]) for frame in recorded["frames"]]
        assert "TensorRT" in backend.description
        assert LIBRARY in backend.description
        assert ("CUDA graphs" in backend.description) == HAS_GRAPHS
        assert "recorded graph" in backend.inspect()
    for name in ("embedding", "patches"):
        assert np.allclose(np.concatenate([o[name] for o in outputs]), recorded[name], atol=1e-5)
    assert np.allclose(np.concatenate([o["score"] for o in outputs]), recorded["score_patchcore"], atol=1e-5)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 6])
def test_any_number_of_frames_gives_what_onnxruntime_gives(
    opened: Callable[..., TensorRTBackend], inputs: Any, recorded: Any, truth: Callable[..., Any], count: int
) -> None:
    frames = recorded["frames"][:count]
    with opened() as backend:
        backend.set_inputs(inputs)
        for _ in range(4):  # the first calls, the captured one and the replayed ones
            assert same(backend.run(frames), truth(frames))


def test_nothing_is_allocated_per_frame_and_nothing_leaks_in_10000(bundle: Bundle, inputs: Any, recorded: Any) -> None:
    trt = fake_tensorrt.load("tensorrt-10.3.0")
    frame = recorded["frames"][:1]
    with TensorRTBackend(make_engine(trt, bundle), bundle.manifest.graphs[0], trt=trt, memory=LIBRARY) as backend:
        backend.set_inputs(inputs)
        first = backend.run(frame)
        for _ in range(9):
            backend.run(frame)
        made, used, live = DRIVER.allocations(), DRIVER.used(), DRIVER.live()
        for _ in range(10_000):
            last = backend.run(frame)
        assert DRIVER.allocations() == made
        assert (DRIVER.used(), DRIVER.live()) == (used, live)
        assert same(last, first)


def test_two_calls_overlap_and_keep_apart(
    opened: Callable[..., TensorRTBackend], inputs: Any, recorded: Any, truth: Callable[..., Any]
) -> None:
    frames = recorded["frames"]
    with opened() as backend:
        backend.set_inputs(inputs)
        for _ in range(4):
            first, second = backend.submit(frames[:1]), backend.submit(frames[1:3])
            assert first != second
            with pytest.raises(InputError, match="2 calls are under way: collect one first"):
                backend.submit(frames[:1])
            assert same(backend.collect(second), truth(frames[1:3]))
            assert same(backend.collect(first), truth(frames[:1]))
        with pytest.raises(InputError, match="not under way"):
            backend.collect(first)


def test_the_parts_of_a_call_are_told(
    opened: Callable[..., TensorRTBackend], inputs: Any, recorded: Any, truth: Callable[..., Any]
) -> None:
    frames = recorded["frames"][:1]
    with opened() as backend:
        with pytest.raises(RecipeError, match="set_inputs first"):
            backend.run_in_parts(frames)
        backend.set_inputs(inputs)
        for _ in range(4):
            outputs, seconds = backend.run_in_parts(frames)
            assert same(outputs, truth(frames))
            assert list(seconds) == ["copy_in", "engine", "copy_out"]
            assert all(value > 0 for value in seconds.values())


def test_prepared_recipes_take_turns_without_a_copy_and_are_freed(
    opened: Callable[..., TensorRTBackend], inputs: Any, recorded: Any, truth: Callable[..., Any]
) -> None:
    frames, expected = recorded["frames"][:2], truth(recorded["frames"][:2])
    twice = inputs | {"score_scale": inputs["score_scale"] * 2}
    with opened() as backend:
        backend.set_inputs(inputs)
        for _ in range(3):
            backend.run(frames)
        live = DRIVER.live()
        prepared, made = backend.prepare(twice), 0
        for turn in range(6):  # the first calls, the captured ones and the replayed ones
            made = DRIVER.allocations() if turn == 3 else made
            assert same(backend.run(frames), expected)
            doubled = backend.run(frames, prepared)
            assert np.allclose(doubled["score"], 2 * expected["score"], atol=1e-4)
            assert np.allclose(doubled["patches"], expected["patches"], atol=1e-5)
        assert DRIVER.allocations() == made
        backend.release(prepared)
        assert DRIVER.live() == live
        assert same(backend.run(frames), expected)
        with pytest.raises(RecipeError, match="does not fit"):
            backend.prepare({})
        assert DRIVER.live() == live


@pytest.mark.parametrize("rule", [BankRule(3), BankRule(reweight=9), BankRule(distance="cosine")])
def test_a_bank_with_a_rule_is_searched_beside_the_engine(
    opened: Callable[..., TensorRTBackend], bundle: Bundle, inputs: Any, recorded: Any, rule: BankRule
) -> None:
    spec, frames, rows = bundle.manifest.graphs[0], recorded["frames"], rule.placed(inputs["bank"][:3].T)
    ruled = inputs | {"bank": bank_columns(rows, np.zeros(len(rows), int), 1), **rule.arrays()}
    with open_backend(bundle.read(spec.file), spec, threads=1, arrays=ruled) as reference:
        reference.set_inputs(ruled)
        expected = reference.run(frames)
    features = Features(expected["embedding"], expected["patches"])
    assert np.allclose(expected["score"], score_features(SCORERS["patchcore"], ruled, features)[0], atol=1e-5)
    with SearchingEngine(opened(), spec) as backend:
        backend.set_inputs(inputs)
        for _ in range(3):
            plain = backend.run(frames)
        description, live = backend.description, DRIVER.live()
        prepared = backend.prepare(ruled)
        for _ in range(4):
            assert same(backend.run(frames, prepared), expected)
            assert same(backend.run(frames), plain)
        backend.release(prepared)
        assert (backend.description, DRIVER.live()) == (description, live)
        assert list(backend.run_in_parts(frames[:1])[1]) == ["copy_in", "engine", "copy_out"]
        backend.set_inputs(ruled)
        assert "rows searched" in backend.description and same(backend.run(frames), expected)
        outputs, seconds = backend.run_in_parts(frames[:2])
        assert same(outputs, {name: values[:2] for name, values in expected.items()})
        assert list(seconds) == ["copy_in", "engine", "copy_out", "search"] and seconds["search"] > 0
    with opened() as bare, pytest.raises(RecipeError, match="differs in: bank_rule"):
        bare.set_inputs(ruled)


def test_results_are_copies(opened: Callable[..., TensorRTBackend], inputs: Any, recorded: Any) -> None:
    with opened() as backend:
        backend.set_inputs(inputs)
        first = backend.run(recorded["frames"][:1])
        kept = {name: array.copy() for name, array in first.items()}
        backend.run(recorded["frames"][1:2])
        backend.run(recorded["frames"][2:3])
    assert same(first, kept)


@every_version
def test_another_recipe_reuses_the_memory_it_fits_into(
    opened: Callable[..., TensorRTBackend], bundle: Bundle, inputs: Any, recorded: Any
) -> None:
    frames, spec = recorded["frames"][:2], bundle.manifest.graphs[0]
    small = inputs | {"bank": np.ascontiguousarray(inputs["bank"][:, :3])}
    large = inputs | {"bank": np.tile(inputs["bank"], 5)}
    with opened() as backend, OnnxRuntimeBackend(bundle.read(spec.file), spec, threads=1) as reference:
        for arrays in (inputs, small, large, inputs):
            before = DRIVER.calls("cuMemAlloc_v2")
            backend.set_inputs(arrays)
            if arrays is small:
                assert DRIVER.calls("cuMemAlloc_v2") == before
            reference.set_inputs(arrays)
            for _ in range(4):
                assert same(backend.run(frames), reference.run(frames))


def test_only_the_wanted_outputs_are_fetched(
    opened: Callable[..., TensorRTBackend], inputs: Any, recorded: Any
) -> None:
    with opened(outputs=("score", "anomaly_map")) as backend:
        backend.set_inputs(inputs)
        before = DRIVER.calls("cuMemcpyDtoHAsync_v2")
        assert set(backend.run(recorded["frames"][:1])) == {"score", "anomaly_map"}
        assert DRIVER.calls("cuMemcpyDtoHAsync_v2") == before


@every_version
def test_cuda_graphs_are_replayed_where_the_library_has_them(
    opened: Callable[..., TensorRTBackend], inputs: Any, recorded: Any
) -> None:
    for wanted in (True, False):
        with opened(cuda_graphs=wanted) as backend:
            backend.set_inputs(inputs)
            before = DRIVER.calls("cuGraphLaunch")
            for _ in range(10):
                backend.run(recorded["frames"][:1])
            assert DRIVER.calls("cuGraphLaunch") - before == (9 if wanted and HAS_GRAPHS else 0)


def test_failures_at_every_call_leave_no_leak_and_a_clear_error(bundle: Bundle, inputs: Any, recorded: Any) -> None:
    trt = fake_tensorrt.load("tensorrt-10.3.0")
    engine, frame = make_engine(trt, bundle), recorded["frames"][:1]

    def life() -> None:
        with TensorRTBackend(engine, bundle.manifest.graphs[0], trt=trt, memory=LIBRARY) as backend:
            backend.set_inputs(inputs)
            for _ in range(4):
                backend.run(frame)

    life()
    before = DRIVER.calls()
    life()
    calls, failures, refused = DRIVER.calls() - before, 0, 0
    for nth in range(1, calls + 1):
        DRIVER.fail(nth, "", fake_cuda.OUT_OF_MEMORY if nth % 2 else fake_cuda.UNKNOWN)
        try:
            life()
        except OrinspectError as error:
            failures += 1
            assert "\n" not in str(error)
            assert any(word in str(error) for word in ("close", "use the onnxruntime backend")), str(error)
        name = DRIVER.failed()
        DRIVER.fail(0)
        gc.collect()
        left = sum(DRIVER.live().values())
        if left == 1 and any(word in name for word in ("Free", "Destroy")):
            # What the driver refused to free is left, and nothing else.
            refused += 1
            DRIVER.forget()
        assert DRIVER.live() == {}, f"after the failure of {name}, call {nth} of {calls}"
        assert DRIVER.depth() == 0, f"after the failure of {name}, call {nth} of {calls}"
    told = f"FAILURES {LIBRARY}: {calls} injected, one at every call; {failures} told, {refused} refused to free"
    print(told)
    assert failures > calls // 2


def test_a_full_device_is_told_with_its_size(trt: Any, bundle: Bundle, inputs: Any) -> None:
    engine, spec = make_engine(trt, bundle), bundle.manifest.graphs[0]
    DRIVER.set_capacity(20_000)
    with pytest.raises(CudaError, match=r"CUDA gave no \d+\.\d MiB .*close other programs"):
        TensorRTBackend(engine, spec, trt=trt, memory=LIBRARY)
    DRIVER.set_capacity(8 << 30)
    with TensorRTBackend(engine, spec, trt=trt, memory=LIBRARY) as backend:
        DRIVER.set_capacity(DRIVER.used())
        with pytest.raises(CudaError, match="close other programs"):
            backend.set_inputs(inputs)
        with pytest.raises(RecipeError, match="no recipe yet"):
            backend.run(np.zeros((1, 32, 32, 3), np.uint8))
        DRIVER.set_capacity(8 << 30)
        backend.set_inputs(inputs)


def test_a_thread_pool_may_use_it(
    opened: Callable[..., TensorRTBackend], inputs: Any, recorded: Any, truth: Callable[..., Any]
) -> None:
    frames = recorded["frames"]
    expected = [truth(frame[None]) for frame in frames]
    with opened() as backend, concurrent.futures.ThreadPoolExecutor(8) as pool:
        backend.set_inputs(inputs)

        def work(number: int) -> bool:
            which = number % len(frames)
            result = same(backend.run(frames[which : which + 1]), expected[which])
            return result and DRIVER.depth() == 0

        # Two calls may be under way, so at most two threads are let in.
        gate = threading.Semaphore(2)

        def guarded(number: int) -> bool:
            with gate:
                return work(number)

        assert all(pool.map(guarded, range(400)))


def test_it_may_be_closed_by_another_thread_and_twice(opened: Callable[..., TensorRTBackend], inputs: Any) -> None:
    backend = opened()
    backend.set_inputs(inputs)
    thread = threading.Thread(target=backend.close)
    thread.start()
    thread.join()
    assert DRIVER.live() == {}
    backend.close()
    with pytest.raises(CudaError, match="the engine was closed"):
        backend.run(np.zeros((1, 32, 32, 3), np.uint8))


def test_a_forked_process_gets_a_clear_error_and_does_no_harm(
    opened: Callable[..., TensorRTBackend], inputs: Any, recorded: Any
) -> None:
    frame = recorded["frames"][:1]
    with opened() as backend:
        backend.set_inputs(inputs)
        before = backend.run(frame)
        child = os.fork()
        if child == 0:
            try:
                backend.run(frame)
            except CudaError as error:
                backend.close()
                os._exit(0 if "before this process was forked" in str(error) else 2)
            except BaseException:
                os._exit(3)
            os._exit(4)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert same(backend.run(frame), before)


def test_many_engines_one_after_the_other_and_side_by_side(
    opened: Callable[..., TensorRTBackend], inputs: Any, recorded: Any, truth: Callable[..., Any]
) -> None:
    frame = recorded["frames"][:1]
    for _ in range(5):
        with opened() as first, opened() as second:
            first.set_inputs(inputs)
            second.set_inputs(inputs)
            assert same(first.run(frame), truth(frame))
            assert same(second.run(frame), truth(frame))
        assert DRIVER.live() == {}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda a: a | {"bank": a["bank"][:-1]}, "the recipe has 0 groups, the engine was built for 1 to 8"),
        (
            lambda a: a | {"bank": np.zeros((5, 60_000), np.float32)},
            "has 60000 bank rows, the engine was built for 1 to 50000",
        ),
        (lambda a: a | {"patch_mean": np.zeros(7, np.float32)}, "was fitted for another encoder; fit it again"),
        (lambda a: {n: v for n, v in a.items() if n != "bank"}, "does not fit this graph (differs in: bank)"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused(
    opened: Callable[..., TensorRTBackend], inputs: Any, change: Any, told: str
) -> None:
    with opened() as backend:
        with pytest.raises(RecipeError) as caught:
            backend.set_inputs(change(inputs))
        assert told in str(caught.value)


@pytest.mark.parametrize("shape", [(0, 32, 32, 3), (5, 32, 32, 3), (1, 31, 32, 3)])
def test_frames_that_do_not_fit_are_refused(
    opened: Callable[..., TensorRTBackend], inputs: Any, shape: tuple[int, ...]
) -> None:
    with opened() as backend:
        backend.set_inputs(inputs)
        with pytest.raises(InputError, match=r"do not fit the engine: it takes 1 to 4 of \[32, 32, 3\]"):
            backend.submit(np.zeros(shape, np.uint8))


@every_version
def test_an_engine_that_tensorrt_cannot_read_is_told(trt: Any, bundle: Bundle) -> None:
    engine = make_engine(trt, bundle)
    broken = dataclasses.replace(engine, plan=b"of another version")
    with pytest.raises(BundleError, match=r"TensorRT cannot read the engine.*orinspect build"):
        TensorRTBackend(broken, bundle.manifest.graphs[0], trt=trt, memory=LIBRARY)


def test_a_recording_is_refused_by_anything_but_the_recorder(trt: Any, bundle: Bundle, monkeypatch: Any) -> None:
    engine = make_engine(trt, bundle)
    monkeypatch.setattr(trt, "IS_RECORDING_FOR_TESTS", False)
    with pytest.raises(CheckFailed, match="a recording-for-tests cannot be run by tensorrt"):
        TensorRTBackend(engine, bundle.manifest.graphs[0], trt=trt, memory=LIBRARY)
