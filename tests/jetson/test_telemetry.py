"""tegrastats lines of every dialect: the recorded ones field by field, composed ones back to what they were made of."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orinspect_jetson.modules import modules
from orinspect_jetson.sensors import board_power_mw
from orinspect_jetson.telemetry import Load, Rail, Sample, parse_line, parse_load

TEXT = (Path(__file__).parents[1] / "data" / "tegrastats_samples.txt").read_text(encoding="utf-8")
FUZZED_LINES = 20_000


def read_samples() -> dict[str, str]:
    lines = TEXT.splitlines()
    return {line[3:].split(" ")[0]: lines[i + 1] for i, line in enumerate(lines) if line.startswith("## ")}


SAMPLES = read_samples()


def test_all_recorded_lines_are_read() -> None:
    assert len(SAMPLES) == 17
    for name, line in SAMPLES.items():
        sample = parse_line(line)
        assert sample.gpu is not None, name
        assert sample.emc is not None, name
        assert sample.temperatures_c or "tail" in name, name
        assert (sample.time is not None) == line[:2].isdigit(), name
        if "tail" not in name:
            assert sample.ram_total_kib is not None, name
            assert sample.cpus, name


# time, RAM used MiB, CPUs on, CPUs off, memory, GPU
CLOCKS = {
    "agx_orin_jp72": ("2026-07-25T09:08:28", 20642, 12, 0, Load(3, (3199,)), Load(12, (1300, 1300))),
    "orin_nano_super_jp62": ("2026-04-19T01:31:10", 519, 6, 0, Load(0, (3199,)), Load(0, (1018,))),
    "agx_orin64_jp5": ("2023-04-24T00:01:24", 1282, 12, 0, Load(0, (2133,)), Load(0, (0, 0))),
    "orin_nx16_jp5style": ("2026-08-21T15:11:33", 998, 8, 0, Load(0), Load(0, (0,))),
    "orin_8gb_jp5_cpu_off": ("2024-01-24T09:17:09", 3503, 4, 2, Load(0, (2133,)), Load(0, (305, 0))),
    "xavier_nx_jp4": (None, 1802, 6, 0, Load(0), Load(99)),
    "nano_jp4_railorder": (None, 2020, 4, 0, Load(0), Load(99)),
    "nano_jp4_busy_nvdec": (None, 1504, 4, 0, Load(9, (1600,)), Load(99, (921,))),
    "agx_xavier_tail_only": (None, None, 0, 0, Load(0, (1331,)), Load(0, (114,))),
    "agx_orin64_jp62_nvenc": ("2026-05-09T18:42:06", 18207, 12, 0, Load(3, (2133,)), Load(0, (0, 0))),
    "thor_r384_no_vin": ("2026-05-17T10:00:32", 4208, 14, 0, Load(0, (665,)), Load(None, (0, 0, 0))),
    "thor_r384_vin": ("2026-04-21T15:50:52", 105265, 14, 0, Load(0, (2750,)), Load(None, (314, 314, 314))),
    "thor_r392": ("2026-07-23T15:29:26", 9101, 14, 0, Load(7, (3200,)), Load(None, (314, 314, 314))),
    "agx_orin64_dla_busy": ("2025-11-21T08:49:48", 13983, 12, 0, Load(1, (2133,)), Load(14, (407, 407))),
    "agx_xavier_jp4": (None, 10881, 8, 0, Load(55, (2133,)), Load(95, (1377,))),
    "xavier_nx_jp4_sudo": (None, 5246, 6, 0, Load(2, (1600,)), Load(0, (1109,))),
    "tx2_jp4": (None, 1873, 6, 0, Load(0, (1600,)), Load(0, (114,))),
}
# module, power of the whole board mW, hottest C
POWER = {
    "agx_orin_jp72": ("p3701-0005", 13907, 52.968),
    "orin_nano_super_jp62": ("p3767-0005", 5971, 49.593),
    "agx_orin64_jp5": ("p3701-0005", 6831, 42.593),
    "orin_nx16_jp5style": ("p3767-0000", None, 57.468),
    "orin_8gb_jp5_cpu_off": ("p3767-0003", 4915, 46.968),
    "xavier_nx_jp4": ("p3668-0001", 14703, 44.5),
    "nano_jp4_railorder": ("p3448-0000", 3227, 63.0),
    "nano_jp4_busy_nvdec": ("p3448-0000", 4523, 48.0),
    "agx_xavier_tail_only": ("p2888-0004", 5258, 38.75),
    "agx_orin64_jp62_nvenc": ("p3701-0005", 8726, 52.562),
    "thor_r384_no_vin": ("p3834-0008", None, 34.5),
    "thor_r384_vin": ("p3834-0008", 19780, 38.875),
    "thor_r392": ("p3834-0008", None, 35.906),
    "agx_orin64_dla_busy": ("p3701-0005", 22430, 77.281),
    "agx_xavier_jp4": ("p2888-0004", 32850, 54.5),
    "xavier_nx_jp4_sudo": ("p3668-0001", 6140, 33.5),
    "tx2_jp4": (None, 2930, 39.0),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_recorded_line(name: str) -> None:
    time, ram_mib, on, off, emc, gpu = CLOCKS[name]
    part, total_mw, hottest = POWER[name]
    sample = parse_line(SAMPLES[name])
    assert sample.time == time
    assert sample.ram_used_kib == (None if ram_mib is None else ram_mib * 1024)
    assert sum(cpu is not None for cpu in sample.cpus) == on
    assert sum(cpu is None for cpu in sample.cpus) == off
    assert (sample.emc, sample.gpu) == (emc, gpu)
    assert board_power_mw(sample.rails, None if part is None else modules()[part]) == total_mw
    assert sample.hottest_c == hottest


def test_fields_of_jetpack_7() -> None:
    sample = parse_line(SAMPLES["agx_orin_jp72"])
    assert sample.cpus[0] == Load(23, (2201,))
    assert sample.engines["NVENC0"] is None
    assert sample.engines["APE"] == Load(None, (174,))
    assert sample.engines["PVA0"] is None
    assert sample.rails["VDD_GPU_SOC"] == Rail(5139, 5139, 5139)
    assert sample.largest_free_block_kib == 2048
    assert (sample.swap_used_kib, sample.swap_total_kib) == (None, None)


def test_sensors_that_are_off_are_left_out() -> None:
    sample = parse_line(SAMPLES["agx_orin64_jp5"])
    assert "GPU" not in sample.temperatures_c
    assert "CV0" not in sample.temperatures_c
    assert set(sample.rails) == {"VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"}


def test_rails_and_temperatures_of_the_same_name() -> None:
    sample = parse_line(SAMPLES["agx_xavier_jp4"])
    assert (sample.rails["GPU"], sample.temperatures_c["GPU"]) == (Rail(18401, 18525), 54.5)
    assert (sample.rails["CPU"], sample.temperatures_c["CPU"]) == (Rail(2301, 2330), 49.0)
    # PMIC@100C is a constant of the driver, not a temperature.
    assert sample.temperatures_c["PMIC"] == 100.0
    assert sample.hottest_c == 54.5


@pytest.mark.parametrize(
    ("text", "load"),
    [
        ("12%", Load(12)),
        ("12%@918", Load(12, (918,))),
        ("@1600", Load(None, (1600,))),
        ("12%@[1018]", Load(12, (1018,))),
        ("12%@[1300,1300]", Load(12, (1300, 1300))),
        ("@[0,0,0]", Load(None, (0, 0, 0))),
        ("101%", None),
        ("12", None),
        ("", None),
        ("off", None),
        ("12%@[300,off]", None),
        ("-1%", None),
        ("12%@", None),
    ],
)
def test_load(text: str, load: Load | None) -> None:
    assert parse_load(text) == load


@pytest.mark.parametrize(
    ("line", "rails"),
    [
        ("VDD_IN 467mW/468mW", {"VDD_IN": Rail(467, 468)}),
        ("VDD_IN 467/468", {"VDD_IN": Rail(467, 468)}),
        ("VDD_GPU -392mW/5mW/7mW", {"VDD_GPU": Rail(-392, 5, 7)}),
        ("VDD_CPU 567mW", {"VDD_CPU": Rail(567)}),
        ("VDD_IN 467", {}),
        ("FOO_COUNT 3/4", {}),
        ("FOO_POWER 3mW/4mW", {"FOO_POWER": Rail(3, 4)}),
        ("VDD_IN 1.5W/2W", {}),
        ("VDD_IN 467mW/468", {}),
        ("VDD_IN 467uW/468uW", {}),
        ("NC 0mW/0mW", {}),
        ("RAM 3/4MB IRAM 0/252kB(lfb 252kB) SWAP 1/2MB", {}),
        ("MTS fg 0% bg 10% EDP limit 0", {}),
    ],
)
def test_rails_need_a_known_unit(line: str, rails: dict[str, Rail]) -> None:
    assert parse_line(line).rails == rails


def test_other_spellings() -> None:
    sample = parse_line("RAM 4722/7844MB (lfb 1x512kB) CPU [0%,5%,off]@2601 EMC 7%@408 GR3D 3 %@[300, 400]")
    assert sample.cpus == (Load(0, (2601,)), Load(5, (2601,)), None)
    assert (sample.emc, sample.gpu) == (Load(7, (408,)), Load(3, (300, 400)))
    assert sample.largest_free_block_kib == 512
    # A bare number after the GPU's or the memory's name may be a load or a clock: it is neither.
    assert parse_line("EMC_FREQ 0 GR3D_FREQ 99").gpu is None


names = st.sampled_from(["VDD_IN", "VDD_CPU_GPU_CV", "GPU", "CPU", "SYS5V", "POM_5V_IN"])
loads = st.builds(Load, st.integers(0, 100), st.lists(st.integers(0, 9999), min_size=0, max_size=3).map(tuple))
rail_values = st.builds(Rail, st.integers(-999, 200_000), st.integers(0, 200_000))
celsius = st.integers(-40_000, 150_000).map(lambda n: n / 1000)


def written(load: Load) -> str:
    clocks = "" if not load.mhz else f"@{load.mhz[0]}" if len(load.mhz) == 1 else f"@[{','.join(map(str, load.mhz))}]"
    return f"{load.percent}%{clocks}"


@settings(max_examples=200, deadline=None)
@given(
    gpu=loads,
    emc=loads,
    cpus=st.lists(st.none() | loads.filter(lambda load: len(load.mhz) == 1), max_size=14),
    rails=st.dictionaries(names, rail_values, max_size=5),
    temperatures=st.dictionaries(st.sampled_from(["cpu", "GPU", "tj", "soc2", "Tboard"]), celsius, max_size=5),
    ram=st.tuples(st.integers(0, 200_000), st.integers(0, 200_000)),
    unit=st.sampled_from(["mW", ""]),
    order=st.randoms(use_true_random=False),
)
def test_what_was_written_is_read_back(
    *,
    gpu: Load,
    emc: Load,
    cpus: list[Load | None],
    rails: dict[str, Rail],
    temperatures: dict[str, float],
    ram: tuple[int, int],
    unit: str,
    order: random.Random,
) -> None:
    parts = [f"RAM {ram[0]}/{ram[1]}MB (lfb 2x4MB)", f"EMC_FREQ {written(emc)}", f"GR3D_FREQ {written(gpu)}"]
    parts.append("CPU [" + ",".join("off" if cpu is None else written(cpu) for cpu in cpus) + "]")
    parts += [f"{name} {rail.now_mw}{unit}/{rail.average_mw}{unit}" for name, rail in rails.items()]
    parts += [f"{name}@{degrees:g}C" for name, degrees in temperatures.items()]
    order.shuffle(parts)
    sample = parse_line("09-30-2026 23:59:59 " + " ".join(parts))
    assert sample.time == "2026-09-30T23:59:59"
    assert (sample.gpu, sample.emc, sample.cpus) == (gpu, emc, tuple(cpus))
    assert (sample.ram_used_kib, sample.ram_total_kib) == (ram[0] * 1024, ram[1] * 1024)
    assert sample.rails == rails
    assert sample.temperatures_c == {name: float(f"{degrees:g}") for name, degrees in temperatures.items()}


@given(st.text(max_size=300))
def test_any_text(text: str) -> None:
    assert_plausible(parse_line(text))


def test_fuzz() -> None:
    """Recorded lines with characters, words and pieces of other lines put in, taken out and doubled."""
    source = random.Random(7)
    lines = list(SAMPLES.values())
    for _ in range(FUZZED_LINES):
        assert_plausible(parse_line(mutated(source, lines)))


def mutated(source: random.Random, lines: list[str]) -> str:
    line = source.choice(lines)
    for _ in range(source.randint(1, 4)):
        start = source.randrange(len(line) + 1)
        end = min(len(line), start + source.choice((0, 1, 1, 2, 8, 40)))
        other = source.choice(lines)
        begin = source.randrange(len(other))
        piece = source.choice(
            ("", " ", "@", "%", "[", "]", "/", "mW", "C", "off", "-", "9" * 12, "\0", "é", other[begin : begin + 30])
        )
        line = line[:start] + piece + line[end:]
    return line


def assert_plausible(sample: Sample) -> None:
    loads = [sample.gpu, sample.emc, *sample.cpus, *sample.engines.values()]
    for load in (load for load in loads if load is not None):
        assert load.percent is None or 0 <= load.percent <= 100
        assert all(0 <= mhz < 1_000_000 for mhz in load.mhz)
    assert all(-100 < degrees < 200 for degrees in sample.temperatures_c.values())
    assert all(isinstance(rail.now_mw, int) for rail in sample.rails.values())
    assert {"NC", "RAM", "SWAP", "IRAM"}.isdisjoint(sample.rails)
