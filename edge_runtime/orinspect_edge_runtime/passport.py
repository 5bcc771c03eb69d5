"""The passport of an engine: where it was built and from what, checked before a byte of the engine is deserialised.

TensorRT's own refusal of a foreign engine is a line about `stdVersionRead`, or a crash. The passport says in one
sentence what differs, and which command mends it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from orinspect_edge_runtime.canonical import Document, decode, encode
from orinspect_edge_runtime.device import RECORDING, TENSORRT, Device
from orinspect_edge_runtime.errors import BundleError, CheckFailed
from orinspect_edge_runtime.manifest import TensorSpec

FORMAT_VERSION = 1
_DOCUMENT = Document(
    "an engine's passport", "build the engine again with  orinspect build", FORMAT_VERSION, BundleError
)


@dataclass(frozen=True)
class EnginePassport:
    """Where an engine was built and what it was built from.

    kind: TENSORRT, or RECORDING for the stand-in that this project's tests use. module .. power_mode: see Device.
    onnx_sha256: of the bundle's graph; plan_sha256, plan_bytes: of the engine file. inputs, outputs: as in the
    manifest. profile: smallest, typical and largest value of every free dimension. host_code: True when the engine
    carries code for the CPU; orinspect builds none and runs none. least_cosine, rank_correlation: of the golden replay
    that let the engine be published.
    """

    module: str
    module_name: str
    l4t: str
    tensorrt: str
    cuda: str
    sm: str
    sm_count: int
    power_mode: str
    precision: str
    head: str
    onnx_sha256: str
    plan_sha256: str
    plan_bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    profile: dict[str, tuple[int, int, int]]
    least_cosine: float
    rank_correlation: float
    created_with: str
    build: dict[str, int | float | str] = field(default_factory=dict)
    host_code: bool = False
    kind: str = TENSORRT
    format_version: int = FORMAT_VERSION


def to_bytes(passport: EnginePassport) -> bytes:
    """The canonical serialisation."""
    return encode(passport)


def from_bytes(content: bytes, where: str) -> EnginePassport:
    """Read and verify a passport. Raises BundleError when it is damaged or of a newer format."""
    return decode(EnginePassport, content, where, _DOCUMENT)


def differences(passport: EnginePassport, here: Device, bundle: str = "BUNDLE") -> list[str]:
    """Why the engine must not run here, one sentence each; none: it may. `bundle` names the bundle in the command."""
    if passport.kind != here.library:
        return [_foreign_kind(passport, bundle)]
    mend = f"run  {build_command(passport, bundle)}  on this device"
    found = []
    if passport.module != here.module:
        built, ours = passport.module_name or passport.module, here.module_name or here.module
        found.append(f"the engine was built on {_article(built)}, this is {_article(ours)}: {mend}")
    for what, built, ours in (
        ("L4T", passport.l4t, here.l4t),
        ("TensorRT", passport.tensorrt, here.tensorrt),
        ("CUDA", _major(passport.cuda), _major(here.cuda)),
        ("compute capability", passport.sm, here.sm),
    ):
        if built != ours:
            have = f"this device has {ours}" if ours else "this device has none"
            found.append(f"the engine was built for {what} {built or 'none'}, {have}: {mend}")
    if passport.host_code:
        found.append(f"the engine asks to run its own code on the CPU, which orinspect never allows: {mend}")
    return found


def file_differences(passport: EnginePassport, plan: bytes, onnx_sha256: str, bundle: str = "BUNDLE") -> list[str]:
    """Why the engine file does not belong to its passport or to the bundle's graph, one sentence each.

    onnx_sha256: of the graph as the bundle holds it now.
    """
    mend = f"run  {build_command(passport, bundle)}  again"
    found = []
    if len(plan) < passport.plan_bytes:
        found.append(f"the engine file is cut off ({len(plan)} of {passport.plan_bytes} bytes): {mend}")
    elif len(plan) != passport.plan_bytes or hashlib.sha256(plan).hexdigest() != passport.plan_sha256:
        found.append(f"the engine file is not the one its passport was written for: {mend}")
    if passport.onnx_sha256 != onnx_sha256:
        found.append(f"the engine was built from another {passport.precision} graph than the bundle holds now: {mend}")
    return found


def remarks(passport: EnginePassport, here: Device) -> list[str]:
    """What makes an engine slower than it could be, but not wrong."""
    found = []
    if passport.power_mode != here.power_mode:
        found.append(f"the engine was tuned in power mode {passport.power_mode}, the mode now is {here.power_mode}")
    if passport.sm_count != here.sm_count:
        found.append(f"the engine was tuned for {passport.sm_count} SM, {here.sm_count} are switched on now")
    return found


def require(passport: EnginePassport, here: Device, plan: bytes, onnx_sha256: str, bundle: str = "BUNDLE") -> None:
    """Raise CheckFailed with every difference; call it before anything is deserialised."""
    found = differences(passport, here, bundle) + file_differences(passport, plan, onnx_sha256, bundle)
    if found:
        raise CheckFailed("; ".join(found))


def build_command(passport: EnginePassport, bundle: str) -> str:
    """The command that builds the engine of this passport."""
    head = "" if passport.head == "patchcore" else f" --head {passport.head}"
    return f"orinspect build {bundle} --precision {passport.precision}{head}"


def _foreign_kind(passport: EnginePassport, bundle: str) -> str:
    if passport.kind == RECORDING:
        return (
            "the engine is a recording made by orinspect's own tests, not a TensorRT engine: "
            f"run  {build_command(passport, bundle)}  on this device"
        )
    return f"the engine is of the unknown kind {passport.kind!r}: run  {build_command(passport, bundle)}"


def _article(name: str) -> str:
    if not name:
        return "a computer that is no Jetson"
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def _major(version: str) -> str:
    """CUDA engines run across minor versions of one major version."""
    return version.partition(".")[0]
