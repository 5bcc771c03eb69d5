"""The demo's journey: which commands, and which of them are run again."""

from __future__ import annotations

from pathlib import Path

import pytest

from orinspect_edge_runtime.errors import OrinspectError
from orinspect_train import demo
from orinspect_train.demo import Step, first_step, other_steps
from orinspect_train.run_folder import DROPPED


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the steps that were really run; each leaves a file of its name in the folder of its stamp."""
    names: list[str] = []

    def run(step: Step) -> None:
        names.append(step.name)
        if step.arguments[0] == "fails":
            raise OrinspectError("the demo stopped")

    monkeypatch.setattr(demo, "_run", run)
    return names


def go(out: Path, *steps: Step, code: str = "code") -> None:
    key = code
    for step in steps:
        key = demo._go(out, step, key, "")


def step(name: str, *arguments: str, whole: bool = True) -> Step:
    return Step(name, arguments or (name,), lambda: whole)


def test_a_second_run_repeats_nothing(tmp_path: Path, ran: list[str]) -> None:
    for _ in range(2):
        go(tmp_path, step("a"), step("b"))
    assert ran == ["a", "b"]


def test_a_changed_command_repeats_itself_and_all_after_it(tmp_path: Path, ran: list[str]) -> None:
    go(tmp_path, step("a"), step("b", "b", "1"), step("c"))
    go(tmp_path, step("a"), step("b", "b", "2"), step("c"))
    assert ran == ["a", "b", "c", "b", "c"]


def test_changed_code_repeats_everything(tmp_path: Path, ran: list[str]) -> None:
    go(tmp_path, step("a"), code="old")
    go(tmp_path, step("a"), code="new")
    assert ran == ["a", "a"]


def test_a_damaged_result_is_made_again(tmp_path: Path, ran: list[str]) -> None:
    go(tmp_path, step("a"))
    go(tmp_path, step("a", whole=False))
    assert ran == ["a", "a"]


def test_a_step_that_failed_is_run_again_and_stops_the_journey(tmp_path: Path, ran: list[str]) -> None:
    for _ in range(2):
        with pytest.raises(OrinspectError):
            go(tmp_path, step("a"), step("b", "fails"), step("c"))
    assert ran == ["a", "b", "b"]


@pytest.mark.parametrize("was_dropped", [True, False])
def test_the_encoder_that_was_not_chosen_is_compared(tmp_path: Path, was_dropped: bool) -> None:
    if was_dropped:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / DROPPED).write_bytes(b"")
    other = other_steps(tmp_path, init="imagenet", seed=0)[0].arguments
    assert other[other.index("--init") + 1] == (str(tmp_path / "run" / DROPPED) if was_dropped else "imagenet")


def test_every_command_of_the_journey_parses(tmp_path: Path) -> None:
    from importlib.metadata import entry_points

    from click import Command

    for one in (first_step(tmp_path, epochs=1, init="scratch", seed=1), *other_steps(tmp_path, init="x", seed=1)):
        (point,) = entry_points(group="orinspect.commands", name=one.arguments[0])
        command = point.load()
        assert isinstance(command, Command)
        command.make_context(one.arguments[0], list(one.arguments[1:]))
