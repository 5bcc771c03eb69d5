"""Which module is this? The verdict over all signals, with a confidence and the conflicts by name."""

from __future__ import annotations

import re
from dataclasses import dataclass

from orinspect_jetson.host import Host
from orinspect_jetson.modules import Chip, Module, chips, modules
from orinspect_jetson.nvpmodel import configuration_of
from orinspect_jetson.signals import (
    Signal,
    boot_specification,
    chip_ids,
    read_compatible,
    read_model,
    read_signals,
)
from orinspect_jetson.software import Software

CERTAIN = 0.9
LIKELY = 0.6
LEAST_SIGNALS = 3


@dataclass(frozen=True)
class Identity:
    """The verdict. module: None when several fit equally well (candidates names them), or when it is no Jetson.

    name: for people. confidence: share (0..1) of the signals' weight that agrees with the verdict. super: flashed with
    a Super configuration; None where the module has none, or where nothing says.
    """

    is_jetson: bool
    name: str
    chip: Chip | None
    module: Module | None
    candidates: tuple[str, ...]
    confidence: float
    signals: tuple[Signal, ...]
    conflicts: tuple[str, ...]
    super: bool | None

    @property
    def certainty(self) -> str:
        """In a word: certain, likely or doubtful."""
        if not self.is_jetson:
            return "certain" if self.confidence >= CERTAIN else "doubtful"
        if self.module is None or self.confidence < LIKELY:
            return "doubtful"
        return "certain" if self.confidence >= CERTAIN and len(self.signals) >= LEAST_SIGNALS else "likely"

    @property
    def gpu_max_mhz(self) -> float | None:
        """The GPU's greatest clock, MHz, in a mode that does not cap it."""
        if self.module is None:
            return None
        return (
            self.module.super.gpu_max_mhz if self.module.super is not None and self.super else self.module.gpu_max_mhz
        )

    @property
    def power_configuration(self) -> str | None:
        """Name of the nvpmodel configuration that NVIDIA ships for this module."""
        if self.module is None:
            return None
        return self.module.super.nvpmodel if self.module.super is not None and self.super else self.module.nvpmodel


def identify(host: Host, software: Software) -> Identity:
    """Recognise the module. Never raises for what is missing or contradictory: it says so in the verdict."""
    refusal = _refusal(host, software)
    if refusal is not None:
        what, conflicts = refusal
        confidence = 0.5 if conflicts else 1.0
        return Identity(False, f"not a Jetson: {what}", None, None, (), confidence, (), tuple(conflicts), None)
    signals = read_signals(host)
    chip = _chip(host)
    module, candidates, confidence = weigh(signals)
    is_super, super_conflicts = (None, []) if module is None or module.super is None else _super(host)
    return Identity(
        is_jetson=True,
        name=_name(chip, module, candidates, is_super),
        chip=chip,
        module=module,
        candidates=candidates,
        confidence=confidence,
        signals=tuple(signals),
        conflicts=(*_conflicts(signals, module), *super_conflicts),
        super=is_super,
    )


def weigh(signals: list[Signal]) -> tuple[Module | None, tuple[str, ...], float]:
    """(module, best candidates, confidence): the module whose agreeing signals weigh most.

    Equal candidates that do not differ in anything that matters (an Orin Nano 8GB and its developer kit's) give the
    first of them.
    """
    spoken = [signal for signal in signals if signal.says]
    scores = {part: sum(s.weight for s in spoken if part in s.says) for part in modules()}
    best = max(scores.values())
    candidates = tuple(part for part, score in scores.items() if score == best)
    confidence = best / (sum(signal.weight for signal in spoken) or 1)
    kinds = {(modules()[p].family, modules()[p].memory_gb, modules()[p].sm, modules()[p].cpus) for p in candidates}
    module = modules()[candidates[0]] if len(kinds) == 1 else None
    return module, candidates, round(confidence, 3)


def _refusal(host: Host, software: Software) -> tuple[str, list[str]] | None:
    """(what it is instead, conflicts) when this is no Jetson, else None."""
    answer = host.run("uname", "-m")
    machine = "" if answer is None else answer.out.strip()
    l4t = f"there is an L4T {software.l4t} user space, but" if software.l4t is not None else None
    if machine not in ("", "aarch64", "arm64"):
        return _processor(host, machine), [f"{l4t} the processor is {machine}"] if l4t else []
    if chip_ids(host):
        return None
    if read_compatible(host):
        return read_model(host) or read_compatible(host)[0], []
    return _processor(host, machine or "unknown"), [f"{l4t} no Tegra chip is visible"] if l4t else []


def _processor(host: Host, machine: str) -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", host.text("/proc/cpuinfo") or "", re.MULTILINE)
    return f"{machine} machine" + (f" ({found[1].strip()})" if found else "")


def _chip(host: Host) -> Chip | None:
    """The chip most places agree on; the first one named when they are even."""
    named = [chip for chip, _ in chip_ids(host)]
    return chips()[max(named, key=named.count)] if named else None


def _super(host: Host) -> tuple[bool | None, list[str]]:
    """(is this a Super configuration, conflicts). The nvpmodel configuration decides: it holds the modes."""
    says: dict[str, bool] = {}
    configuration = configuration_of(host)
    if configuration is not None:
        says["the nvpmodel configuration"] = configuration.endswith("_super")
    specification = boot_specification(host)
    if specification is not None and "devkit" in specification:
        # Carrier makers name their boards otherwise; their TNSPEC says nothing about Super.
        says["TNSPEC"] = "-super" in specification
    if read_compatible(host):
        says["the device tree's compatible"] = any(text.endswith("-super") for text in read_compatible(host))
    if read_model(host):
        says["the model string"] = "super" in read_model(host).lower()
    if not says:
        return None, []
    decider, verdict = next(iter(says.items()))
    against = [name for name, value in says.items() if value != verdict]
    words = {True: "Super", False: "not Super"}
    text = f"{decider} says {words[verdict]}, against {' and '.join(against)} ({words[not verdict]})"
    return verdict, [text] if against else []


def _conflicts(signals: list[Signal], module: Module | None) -> list[str]:
    found = [f"{s.name} {s.value!r} names a part that is not in the table" for s in signals if not s.says]
    if module is None:
        return found
    for signal in signals:
        if signal.says and module.part not in signal.says:
            found.append(f"{signal.name} {signal.value!r} says {_named(signal.says)}, not {module.name}")
    return found


def _named(parts: frozenset[str]) -> str:
    names = sorted({modules()[part].name for part in parts})
    if len(names) == 1:
        return names[0]
    return f"one of {', '.join(names)}" if len(names) <= 4 else "another module"


def _name(chip: Chip | None, module: Module | None, candidates: tuple[str, ...], is_super: bool | None) -> str:
    if module is not None:
        return module.name + (" Super" if is_super else "")
    family = chip.name if chip else "Tegra"
    of_chip = [m for m in modules().values() if chip is None or m.chip == chip.id]
    if len(candidates) < len(of_chip):
        return f"Jetson with {family} chip, one of {', '.join(modules()[part].name for part in candidates)}"
    return f"Jetson with {family} chip, module not known"
