"""An export from start to end: RUN in, verified BUNDLE out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from orinspect_edge_runtime import drawn_defects, learnt
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.errors import CheckFailed, InputError
from orinspect_edge_runtime.golden import read_golden, replay
from orinspect_edge_runtime.heads import HEADS, STUDENT
from orinspect_edge_runtime.manifest import GraphSpec, Manifest
from orinspect_edge_runtime.preprocess import list_images
from orinspect_edge_runtime.report import render
from orinspect_export.bundle_writer import write_bundle
from orinspect_export.calibration import CALIBRATORS
from orinspect_export.compiler import compile_report
from orinspect_export.decisions import Budget
from orinspect_export.fused import Fused, fuse
from orinspect_export.golden import golden_arrays, golden_of_precision, to_npz
from orinspect_export.graph import EncoderGraph, changes_by_defects, export_encoder, export_student
from orinspect_export.head_graph import graph_spec
from orinspect_export.images import ExportImages, choose_images
from orinspect_export.modelopt import METHODS
from orinspect_export.precision_page import precision_page

PRECISIONS = ("fp32", "fp16", "int8")
# For computers without an NVIDIA GPU: TensorRT takes no graph of this layout.
CPU_PRECISIONS = ("int8-cpu",)
Progress = Callable[[float], None]


@dataclass(frozen=True)
class ExportOptions:
    """precisions: of PRECISIONS and CPU_PRECISIONS, fp32 among them or not. seed: of the choice of images. budget: what
    the precisions may change. labelled: a dataset with good and defective images to hold the budget on. verify_compiler:
    build every graph with NVIDIA's compiler as well, which must be installed. modelopt: the Python of an environment with
    NVIDIA ModelOpt, which then places the int8 graph's pairs. calibrator: of CALIBRATORS, or with modelopt of METHODS; None:
    what has served best. turns, second_scale: how often the encoder looks at each frame, see `graph.open_run`.
    """

    precisions: tuple[str, ...] = PRECISIONS
    seed: int = 0
    replace: bool = False
    verify_compiler: bool = False
    calibrator: str | None = None
    modelopt: Path | None = None
    budget: Budget = field(default_factory=Budget)
    labelled: Path | None = None
    turns: bool = False
    second_scale: float | None = None

    def __post_init__(self) -> None:
        known = (*PRECISIONS, *CPU_PRECISIONS)
        if not self.precisions or not set(self.precisions) <= set(known):
            raise InputError(f"--precision {','.join(self.precisions)!r}: use some of {', '.join(known)}")
        if self.modelopt is not None and "int8" not in self.precisions:
            raise InputError(
                "--modelopt places int8, which --precision does not name: add it, or leave --modelopt away"
            )
        able = CALIBRATORS if self.modelopt is None else METHODS
        if self.calibrator_in_use not in able:
            whose = "" if self.modelopt is None else ", which ModelOpt has"
            raise InputError(f"--calibrator {self.calibrator!r}: use one of {', '.join(able)}{whose}")

    @property
    def calibrator_in_use(self) -> str:
        """Of squared error, or the one of ModelOpt that cuts nothing off, unless another was asked for."""
        return self.calibrator or ("mse" if self.modelopt is None else "min-max")


@dataclass(frozen=True)
class Exported:
    """What an export made. builds: the compiler's layers, seconds and megabytes by `HEAD PRECISION`, if asked for.

    refused: the precisions that were left out, and why; `student PRECISION` where only the student's graph was.
    """

    manifest: Manifest
    skipped: tuple[str, ...]
    builds: dict[str, dict[str, Any]]
    refused: dict[str, str]


def export_run(
    run: Path, out: Path, calibration: Path, options: ExportOptions, progress: Progress | None = None
) -> Exported:
    """Export the encoder of `run` to the bundle `out`. calibration: folder of images such as the device will see.

    A precision that does not decide as fp32 does is left out when others remain. What the gate measures is kept in
    `.OUT.gate.jsonl` beside `out` until the export is done: one that was killed or refused goes on there. Raises
    InputError for anything that cannot be used, CheckFailed when no precision remains, a graph does not reproduce golden
    or the compiler refuses it; `out` is then as it was before.
    """
    tell = progress or (lambda share: None)
    if out.exists() and not options.replace:
        raise InputError(f"{out} exists already: choose another name, or pass --force to replace it")
    # Told before the minute that tracing may take.
    list_images([calibration])
    encoder = export_encoder(run, turns=options.turns, second_scale=options.second_scale)
    student = export_student(run, encoder)
    tell(0.15)
    images = choose_images(calibration, encoder.preprocess, options.seed)
    tell(0.25)
    middle = 0.7 if student is None else 0.45
    every = fuse(encoder, HEADS, images, options, out, lambda share: tell(0.25 + (middle - 0.25) * share))
    wanted = tuple(name for name in options.precisions if name not in every.lowered.refused)
    if not wanted:
        raise CheckFailed(next(iter(every.lowered.refused.values())))
    fused = [every]
    if student is not None:
        # By itself, so that what every bundle has is as it would be without a student.
        own = fuse(student.encoder, (STUDENT,), images, options, out, lambda share: tell(0.45 + 0.25 * share))
        fused.append(own.only(every.models))
    graphs = {key: graph for one in fused for key, graph in one.graphs().items()}
    builds = _build_all(graphs) if options.verify_compiler else {}
    changes = changes_by_defects(encoder, images.calibration, options.seed)
    beside = {drawn_defects.FILE: drawn_defects.to_bytes(changes)}
    golden = to_npz(_golden(encoder, graphs, images, options.seed))
    tell(0.8)
    parity = _parity(fused, images, options.seed)
    refused = {name: why for one in fused for name, why in one.refused.items()}
    tell(0.9)
    made_by = f"orinspect {version('orinspect')}"
    page = precision_page(encoder.spec.name, parity, _megabytes(graphs), refused)
    manifest = write_bundle(
        out,
        encoder.spec,
        encoder.preprocess,
        graphs={key: graph for key, graph in graphs.items() if key[1] in wanted},
        golden=golden,
        parity={name: value for name, value in parity.items() if name != "activations"},
        page=render(page),
        beside=beside | ({} if student is None else {learnt.FILE: learnt.to_bytes(student.learnt)}),
        created_with=made_by,
        replace=options.replace,
        verify=_verify,
    )
    for one in fused:
        one.journal.drop()
    tell(1.0)
    return Exported(manifest, tuple(s.reason for s in images.skipped), builds, refused)


def _golden(
    encoder: EncoderGraph, graphs: dict[tuple[str, str], bytes], images: ExportImages, seed: int
) -> dict[str, Any]:
    made: dict[str, dict[str, tuple[bytes, GraphSpec]]] = {}
    for (head, precision), graph in graphs.items():
        spec = graph_spec(head, precision, encoder.spec, encoder.preprocess)
        made.setdefault(precision, {})[head] = (graph, spec)
    golden = golden_arrays(made.pop("fp32"), encoder.spec, images.calibration, seed)
    lower = [golden_of_precision(golden, heads) for heads in made.values()]
    return golden | {name: array for found in lower for name, array in found.items()}


def _parity(fused: Sequence[Fused], images: ExportImages, seed: int) -> dict[str, Any]:
    """Figures by precision, under `reference` what they are compared with, under `calibration` what they were made of."""
    import onnxruntime

    rows = {name: row for one in fused for name, row in one.parity(images).items()}
    reference = {"graph": "fp32", "onnxruntime": onnxruntime.__version__, "seed": seed}
    return fused[0].lowered.notes | rows | {"reference": reference}


def _megabytes(graphs: dict[tuple[str, str], bytes]) -> dict[str, float]:
    """Size of the file of the first head and of the student's, by precision."""
    named = {HEADS[0]: "", STUDENT: f"{STUDENT} "}
    return {named[head] + precision: len(graph) / 1e6 for (head, precision), graph in graphs.items() if head in named}


def _build_all(graphs: dict[tuple[str, str], bytes]) -> dict[str, dict[str, Any]]:
    builds = {}
    for (head, precision), graph in graphs.items():
        if precision in CPU_PRECISIONS:
            continue
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
                f"the {spec.precision} {spec.head} graph does not reproduce its outputs once it is written (embedding "
                f"cosine {result.least_cosine:.4f}, score rank correlation {result.rank_correlation:.3f}): "
                f"the disk or the memory is at fault, or export without {spec.precision}"
            )
