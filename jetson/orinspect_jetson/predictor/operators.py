"""Which ONNX operators cost what: the tables of the fusion rules. Everything not named here is elementwise."""

from __future__ import annotations

# What only reinterprets memory, or writes straight into the buffer of its consumer.
VIEWS = frozenset(
    [
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
        "Identity",
        "Dropout",
        "Cast",
        "Concat",
        "Split",
        "Slice",
        "Expand",
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "SequenceConstruct",
        "ConcatFromSequence",
        "SplitToSequence",
        "SequenceAt",
    ]
)
# What computes sizes, on the host.
SHAPES = frozenset(["Shape", "Size", "ConstantOfShape", "Range", "NonZero"])
# What launches a kernel of its own.
KERNELS = frozenset(
    [
        "Conv",
        "ConvTranspose",
        "Gemm",
        "MatMul",
        "FusedMatMul",
        "MaxPool",
        "AveragePool",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "Softmax",
        "LogSoftmax",
        "LayerNormalization",
        "GroupNormalization",
        "InstanceNormalization",
        "RMSNormalization",
        "LpNormalization",
        "ReduceMean",
        "ReduceSum",
        "ReduceMax",
        "ReduceMin",
        "ReduceL2",
        "ArgMax",
        "ArgMin",
        "TopK",
        "Resize",
        "Upsample",
        "Gather",
        "GatherElements",
        "GatherND",
        "ScatterND",
        "Einsum",
        "CumSum",
        "GridSample",
        "NonMaxSuppression",
        "DepthToSpace",
        "SpaceToDepth",
    ]
)
