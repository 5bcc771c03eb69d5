"""A graph cut down to what some of its outputs need. onnxruntime computes every node of a file, asked for or not.

This works on the bytes of the file, which are protobuf's wire format with the field numbers of ONNX's own onnx.proto: a
device needs no onnx package for it, and weights are not unpacked.
"""

from __future__ import annotations

from collections.abc import Iterator

# Numbers of fields: of a model its graph; of a graph its nodes, inputs and outputs; of a node its inputs and outputs; of an
# input or output of a graph its name.
GRAPH = 7
NODE, INPUT, OUTPUT = 1, 11, 12
NODE_INPUT, NODE_OUTPUT = 1, 2
NAME = 1
VARINT, BYTES = 0, 2
FIXED = {1: 8, 5: 4}


def cut_graph(model: bytes, outputs: tuple[str, ...]) -> bytes:
    """The ONNX model with these outputs alone, and with the nodes and inputs that they need.

    Graphs inside of nodes (If, Loop) must not use values from outside. Raises ValueError for what is no such model.
    """
    parts: list[bytes | memoryview] = []
    for number, content, whole in _fields(memoryview(model)):
        if number == GRAPH:
            kept = list(_kept(content, outputs))
            parts += [_varint(GRAPH << 3 | BYTES), _varint(sum(map(len, kept))), *kept]
        else:
            parts.append(whole)
    return b"".join(parts)


def _kept(graph: memoryview, outputs: tuple[str, ...]) -> Iterator[memoryview]:
    """The graph's fields that are wanted. Its nodes are in the order of their work, as ONNX demands."""
    fields, needed, useful = list(_fields(graph)), {name.encode() for name in outputs}, set[int]()
    for place in reversed([place for place, (number, _, _) in enumerate(fields) if number == NODE]):
        if needed & _names(fields[place][1], NODE_OUTPUT):
            needed |= _names(fields[place][1], NODE_INPUT)
            useful.add(place)
    asked = {OUTPUT: {name.encode() for name in outputs}, INPUT: needed}
    for place, (number, content, whole) in enumerate(fields):
        if place in useful if number == NODE else number not in asked or asked[number] & _names(content, NAME):
            yield whole


def _names(message: memoryview, field: int) -> set[bytes]:
    """Names in a field; an empty one stands for an input or output that is left away."""
    return {bytes(content) for number, content, _ in _fields(message) if number == field and len(content)}


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """Number, content and the whole of each field."""
    place = 0
    while place < len(message):
        begin = place
        tag, place = _read_varint(message, place)
        kind = tag & 7
        if kind == VARINT:
            length = _read_varint(message, place)[1] - place
        elif kind == BYTES:
            length, place = _read_varint(message, place)
        elif kind in FIXED:
            length = FIXED[kind]
        else:
            raise ValueError("not an ONNX model")
        if place + length > len(message):
            raise ValueError("an ONNX model that is cut off")
        yield tag >> 3, message[place : place + length], message[begin : place + length]
        place += length


def _read_varint(message: memoryview, place: int) -> tuple[int, int]:
    """An integer of up to 64 bits in groups of 7, the lowest first, and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if place == len(message):
            break
        value |= (message[place] & 127) << shift
        place += 1
        if message[place - 1] < 128:
            return value, place
    raise ValueError("not an ONNX model")


def _varint(value: int) -> bytes:
    groups = bytearray()
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])
