"""An export from start to end: RUN in, verified BUNDLE out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.errors import CheckFailed, InputError
from orinspect_edge_runtime.golden import read_golden, replay
from orinspect_edge_runtime.heads import HEADS
from orinspect_edge_runtime.manifest import Manifest
from orinspect_export.bundle_writer import write_bundle
from orinspect_export.calibration import PERCENTILE
from orinspect_export.compiler import compile_report
from orinspect_export.fp16 import to_fp16
from orinspect_export.golden import golden_arrays, to_npz
from orinspect_export.graph import EncoderGraph, export_encoder
from orinspect_export.head_graph import attach_head, graph_spec
from orinspect_export.images import ExportImages, choose_images
from orinspect_export.int8 import to_int8
from orinspect_export.parity import compare, features_of

if TYPE_CHECKING:
    import onnx

PRECISIONS = ("fp32", "fp16", "int8")
Progress = Callable[[float], None]


@dataclass(frozen=True)
class ExportOptions:
    """precisions: of PRECISIONS, fp32 among them or not. seed: of the choice of images. verify_compiler: build every
    graph with NVIDIA's compiler as well, which must be installed."""

    precisions: tuple[str, ...] = PRECISIONS
    seed: int = 0
    replace: bool = False
    verify_compiler: bool = False

    def __post_init__(self) -> None:
        unknown = [name for name in self.precisions if name not in PRECISIONS]
        if unknown or not self.precisions:
            raise InputError(f"--precision {','.join(self.precisions)!r}: use some of {', '.join(PRECISIONS)}")


@dataclass(frozen=True)
class Exported:
    """What an export made. builds: the compiler's layers, seconds and megabytes by `HEAD PRECISION`, if asked for."""

    manifest: Manifest
    skipped: tuple[str, ...]
    builds: dict[str, dict[str, Any]]


def export_run(
    run: Path, out: Path, calibration: Path, options: ExportOptions, progress: Progress | None = None
) -> Exported:
    """Export the encoder of `run` to the bundle `out`. calibration: folder of images such as the device will see.

    Raises InputError for anything that cannot be used, CheckFailed when a graph does not reproduce the fp32 outputs or
    the compiler refuses it; `out` is then as it was before.
    """
    tell = progress or (lambda share: None)
    if out.exists() and not options.replace:
        raise InputError(f"{out} exists already: choose another name, or pass --force to replace it")
    encoder = export_encoder(run)
    tell(0.15)
    images = choose_images(calibration, encoder.preprocess, options.seed)
    tell(0.25)
    models, notes = _precisions(encoder, images, options.precisions, lambda share: tell(0.25 + 0.35 * share))
    graphs = {
        (head, precision): attach_head(model, head, encoder.spec, encoder.preprocess).SerializeToString()
        for precision, model in models.items()
        for head in HEADS
    }
    builds = _build_all(graphs) if options.verify_compiler else {}
    golden = to_npz(_golden(encoder, graphs, images, options.seed))
    tell(0.75)
    parity = _parity(models, images, options.seed) | notes
    tell(0.9)
    wanted = {key: graph for key, graph in graphs.items() if key[1] in options.precisions}
    made_by = f"orinspect {version('orinspect')}"
    manifest = write_bundle(
        out,
        encoder.spec,
        encoder.preprocess,
        graphs=wanted,
        golden=golden,
        parity=parity,
        created_with=made_by,
        replace=options.replace,
        verify=_verify,
    )
    tell(1.0)
    return Exported(manifest, tuple(s.reason for s in images.skipped), builds)


def _precisions(
    encoder: EncoderGraph, images: ExportImages, wanted: tuple[str, ...], tell: Progress
) -> tuple[dict[str, onnx.ModelProto], dict[str, Any]]:
    """The encoder's graph in fp32 (always: the others are compared with it) and in every wanted precision."""
    models, notes = {"fp32": encoder.model}, dict[str, Any]()
    if "fp16" in wanted:
        models["fp16"] = to_fp16(encoder.model)
    if "int8" in wanted:
        quantised = to_int8(encoder.model, images.calibration, tell)
        models["int8"] = quantised.model
        notes["calibration"] = {
            "images": list(images.names),
            "activation_range_percentile": PERCENTILE,
            "kept_float32": list(quantised.kept_float),
        }
    return models, notes


def _golden(
    encoder: EncoderGraph, graphs: dict[tuple[str, str], bytes], images: ExportImages, seed: int
) -> dict[str, Any]:
    specs = {head: graph_spec(head, "fp32", encoder.spec, encoder.preprocess) for head in HEADS}
    fp32 = {head: (graphs[head, "fp32"], spec) for head, spec in specs.items()}
    return golden_arrays(fp32, encoder.spec, images.calibration, seed)


def _parity(models: dict[str, onnx.ModelProto], images: ExportImages, seed: int) -> dict[str, Any]:
    """Figures by precision, and under `reference` what they are compared with."""
    import onnxruntime

    exact = features_of(models["fp32"], images.held_out)
    others = {name: model for name, model in models.items() if name != "fp32"}
    figures = {name: asdict(compare(exact, features_of(model, images.held_out))) for name, model in others.items()}
    return figures | {"reference": {"graph": "fp32", "onnxruntime": onnxruntime.__version__, "seed": seed}}


def _build_all(graphs: dict[tuple[str, str], bytes]) -> dict[str, dict[str, Any]]:
    builds = {}
    for (head, precision), graph in graphs.items():
        report = compile_report(graph)
        if not report.built:
            raise CheckFailed(f"NVIDIA's compiler refuses the {precision} {head} graph: {report.errors[0]}")
        builds[f"{head} {precision}"] = asdict(report)
    return builds


def _verify(folder: Path) -> None:
    """Read the written files back and replay golden through every graph. Raises CheckFailed naming the first miss."""
    bundle = Bundle.open(folder)
    golden = read_golden(bundle)
    for spec in bundle.manifest.graphs:
        result = replay(bundle, spec, golden)
        if not result.passed:
            raise CheckFailed(
                f"the {spec.precision} {spec.head} graph does not reproduce the fp32 outputs (embedding cosine "
                f"{result.least_cosine:.4f}, score rank correlation {result.rank_correlation:.3f}): "
                f"export without {spec.precision}, or give --calibration images that are more like the device's"
            )
