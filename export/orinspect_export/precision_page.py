"""The page of a bundle that tells what each precision changes, which layers it keeps in a higher one, and why."""

from __future__ import annotations

from typing import Any

from orinspect_edge_runtime import charts
from orinspect_edge_runtime.report import Page, Table
from orinspect_export.activation_statistics import LARGEST_HALF, SMALLEST_NORMAL_HALF

NOTES = (
    "Every precision scores the same images by a memory bank fitted through its own graph and sets its own threshold, "
    "where 95 % of the images pass; rank correlation and flipped verdicts are against fp32's.",
    "Without labelled images, each image is scored a second time with a part of another one pasted in.",
    "The layers to keep were chosen on the images that these figures are of; on other images they can be a little worse.",
    "All of this ran in onnxruntime on a CPU: not yet run on hardware.",
)


def precision_page(encoder: str, parity: dict[str, Any], megabytes: dict[str, float], refused: dict[str, str]) -> Page:
    """The page. parity: as an export records it. megabytes: of one ONNX file, by precision. refused: with the reason."""
    rows: dict[str, Any] = {name: parity[name] for name in megabytes if name in parity}
    return Page(
        title=f"Precisions of {encoder}",
        lead="What half precision and INT8 change, on images of your own, and which layers pay for it.",
        facts=tuple(_fact(name, row) for name, row in rows.items()),
        figures=_figures(parity.get("activations", {})),
        tables=(
            _precision_table(rows, megabytes),
            *(_kept_table(name, row) for name, row in rows.items() if row["kept"]),
            *_warning_table(rows),
        ),
        notes=(*(f"Left out: {reason}." for reason in refused.values()), *_budget(parity), *NOTES),
        footer=f"onnxruntime {parity['reference']['onnxruntime']}, seed {parity['reference']['seed']}.",
    )


def _fact(name: str, row: dict[str, Any]) -> tuple[str, str]:
    done = f"{row['lowered_work']:.0%} of the work is in {name}"
    return f"{len(row['kept'])} of {row['layers']}", f"{name}: layers kept in {row['kept_in']}; {done}"


def _figures(activations: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    if not activations:
        return ()
    largest = [found["largest"] for found in activations.values()]
    typical = [found["typical"] for found in activations.values()]
    limits = {"largest half, 65504": LARGEST_HALF, "smallest normal half": SMALLEST_NORMAL_HALF}
    subnormal = [100 * found["subnormal"] for found in activations.values()]
    place = list(range(len(subnormal)))
    return (
        (
            "How far activations reach, tensor by tensor",
            charts.range_chart(largest, typical, limits, "tensor, from camera to score"),
        ),
        (
            "Values that half precision holds with fewer bits",
            charts.line_chart(place, {"subnormal": subnormal}, "tensor", "% of the values"),
        ),
    )


def _precision_table(rows: dict[str, Any], megabytes: dict[str, float]) -> Table:
    body = [("fp32", f"{megabytes['fp32']:.1f}", "1 (reference)", *("-",) * 6)]
    for name, row in rows.items():
        rank, naive = row["score_rank_correlation"], row["naive"]["score_rank_correlation"]
        auroc = "-" if row["auroc"] is None else f"{row['auroc']:.4f} ({-row['auroc_drop']:+.2f} points)"
        body.append(
            (
                name,
                f"{megabytes[name]:.1f}",
                f"{row['embedding_cosine_min']:.5f}",
                f"{row['patch_difference_max']:.3g}",
                "-" if rank is None else f"{rank:.5f}",
                "-" if naive is None else f"{naive:.5f}",
                f"{row['verdict_flips']:.2%}",
                auroc,
                f"{len(row['kept'])} of {row['layers']} in {row['kept_in']}",
            )
        )
    head = ("precision", "MB", "least cosine", "largest difference", "rank correlation", "with no layer kept")
    caption = f"Against fp32, {max((row['scored_images'] for row in rows.values()), default=0)} images scored."
    return Table("Precisions", (*head, "flipped verdicts", "AUROC", "layers kept"), tuple(body), caption)


def _kept_table(name: str, row: dict[str, Any]) -> Table:
    work = row["kept_work"]
    body = tuple((layer, f"{effect:.4f}", f"{work[layer]:.1%}") for layer, effect in row["kept"].items())
    caption = (
        "Effect: change of the distances from the memory bank when this layer alone is lowered, in units of their spread. "
        "Work: multiplications and memory traffic, of all layers'. Kept are those that save most error for their work; "
        f"{row['lowered_work']:.0%} of the work is done in {name}."
    )
    head = ("layer", "effect on the score", "share of the work")
    return Table(f"{name}: layers kept in {row['kept_in']}", head, body, caption)


def _warning_table(rows: dict[str, Any]) -> tuple[Table, ...]:
    body = tuple((name, layer, why) for name, row in rows.items() for layer, why in row["warnings"].items())
    return (Table("Layers to watch", ("precision", "layer", "what was seen"), body),) if body else ()


def _budget(parity: dict[str, Any]) -> tuple[str, ...]:
    if "budget" not in parity:
        return ()
    budget = parity["budget"]
    return (
        f"Budget: rank correlation at least {budget['min_rank_correlation']:g} and {budget['max_flips']:.2%} of the "
        f"verdicts flipped (one swap of neighbours, two verdicts, is always allowed), or with labelled images at "
        f"most {budget['max_auroc_drop']:g} points of AUROC.",
    )
