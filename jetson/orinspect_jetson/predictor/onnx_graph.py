"""Layer tables of ONNX files. The only part of the predictor that needs the onnx package, imported when called."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from orinspect_edge_runtime.errors import InputError
from orinspect_jetson.predictor.fusion import Fusion, Node
from orinspect_jetson.predictor.layers import LayerTable, table_of


def read_onnx(path: Path, resident: frozenset[str] = frozenset(), sizes: Mapping[str, int] | None = None) -> LayerTable:
    """The layer table of an ONNX file, for one image; external weights are not needed and not opened.

    resident: inputs that stay on the device between inferences (memory banks). sizes: of free axes by their name; the
    first axis of any other input is the batch and becomes 1. Raises InputError: not ONNX, or an axis stays free.
    """
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
    except (OSError, ValueError, onnx.onnx_cpp2py_export.checker.ValidationError) as error:
        raise InputError(f"{path}: cannot be read as ONNX ({error})") from error
    except Exception as error:
        if type(error).__module__.startswith("google.protobuf"):
            raise InputError(f"{path}: cannot be read as ONNX ({error})") from error
        raise
    if not model.graph.node:
        raise InputError(f"{path}: not an ONNX graph, or an empty one")
    return table_of_model(model, str(path), resident, sizes)


def table_of_model(
    model: Any, name: str, resident: frozenset[str] = frozenset(), sizes: Mapping[str, int] | None = None
) -> LayerTable:
    """The layer table of a loaded onnx.ModelProto, as read_onnx (the model is changed: free axes get their size)."""
    graph = model.graph
    stored = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    for value in inputs:
        _fix_axes(value, name, value.name in resident, sizes or {})
    known = _infer(model, name)
    if any(0 in shape for shape in known.values()):
        model, known = _slim(model, name)
        graph = model.graph
        stored = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    shapes = stored | known
    nodes, constants = _nodes(graph)
    shapes |= constants
    fusion = Fusion(shapes, frozenset(stored) | frozenset(constants) | resident)
    carried = [value.name for value in inputs if value.name not in resident]
    for tensor in carried:
        fusion.start(tensor)
    for node in nodes:
        fusion.add(node)
    layers, peak = fusion.finish([value.name for value in graph.output])
    batch = max(shapes[carried[0]][0], 1) if carried and shapes[carried[0]] else 1
    if batch != 1:
        raise InputError(f"{name}: its batch is fixed to {batch}; export it with batch 1 or a free batch")
    parameters = sum(prod(dims) for dims in stored.values()) + sum(
        prod(shapes.get(tensor, (0,))) for tensor in resident
    )
    return table_of(name, layers, parameters, peak, shapes[carried[0]][1:] if carried else ())


def _infer(model: Any, name: str) -> dict[str, tuple[int, ...]]:
    import onnx

    # Shapes found by the exporter may name the free batch; those of the fixed inputs replace them.
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except onnx.shape_inference.InferenceError as error:
        raise InputError(f"{name}: its shapes do not fit together ({error})") from error
    values = [*inferred.input, *inferred.value_info, *inferred.output]
    return {value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim) for value in values}


def _slim(model: Any, name: str) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """(model, shapes) after folding what computes sizes: exporters leave chains of Shape, Gather, Mul, Slice."""
    import onnxslim

    try:
        slim = onnxslim.slim(model)
    except Exception as error:
        raise InputError(
            f"{name}: sizes inside the graph are not known; run it through onnxslim first ({error})"
        ) from error
    known = _infer(slim, name)
    free = next((tensor for tensor, shape in known.items() if 0 in shape), None)
    if free is not None:
        raise InputError(f"{name}: the size of {free!r} depends on the data; export the graph with fixed sizes")
    return slim, known


def _fix_axes(value: Any, name: str, is_resident: bool, sizes: Mapping[str, int]) -> None:
    for axis, size in enumerate(value.type.tensor_type.shape.dim):
        if size.dim_value > 0:
            continue
        label = size.dim_param or "?"
        # Exporters name an axis "153+groups" when it follows from another one.
        extra, _, symbol = label.rpartition("+")
        if symbol in sizes and (not extra or extra.strip().isdigit()):
            size.dim_value = sizes[symbol] + int(extra or 0)
        elif axis == 0 and not is_resident:
            size.dim_value = 1
        else:
            raise InputError(f"{name}: axis {axis} of input {value.name!r} is free; say its size: --size {label}=N")


def _nodes(graph: Any) -> tuple[list[Node], dict[str, tuple[int, ...]]]:
    """(nodes, shapes of the tensors that Constant nodes make)."""
    import onnx

    nodes, constants = [], {}
    for node in graph.node:
        ints: dict[str, tuple[int, ...]] = {}
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.INT:
                ints[attribute.name] = (attribute.i,)
            elif attribute.type == onnx.AttributeProto.INTS:
                ints[attribute.name] = tuple(attribute.ints)
            elif attribute.type == onnx.AttributeProto.TENSOR and node.op_type == "Constant":
                constants[node.output[0]] = tuple(attribute.t.dims)
        nodes.append(Node(node.op_type, tuple(node.input), tuple(node.output), ints))
    return nodes, constants
