"""Memory while running: an estimate from the network's tensors. Not validated: nobody publishes it with the network."""

from __future__ import annotations

from orinspect_jetson.predictor.layers import LayerTable

BYTES = {"fp32": 4, "fp16": 2, "int8": 1}
# CUDA context, TensorRT's code and the runtime process: typical, least, most.
RUNTIME_MB = (400.0, 200.0, 900.0)
# Engines keep some weights twice (padded, or in FP16 beside INT8); activations of norms stay FP16.
SLACK = (1.2, 1.0, 2.5)


def memory_mb(table: LayerTable, precision: str, batch: int) -> tuple[float, float, float]:
    """(likely, least, most) MB of device memory for the engine, its activations and the runtime."""
    weights = table.parameters * BYTES[precision] / 1e6
    activations = table.peak * max(BYTES[precision], 2 if precision == "int8" else 0) * batch / 1e6
    likely, least, most = (r + s * (weights + activations) for r, s in zip(RUNTIME_MB, SLACK, strict=True))
    return likely, least, most
