from __future__ import annotations

import pytest
import torch

from orinspect_edge_runtime.errors import CheckFailed
from orinspect_train.health import PATIENCE, Health, Watch, examine

GOOD, BAD = Health(0.5, 20.0), Health(0.001, 20.0)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_points_spread_over_the_sphere_are_healthy() -> None:
    health = examine(normal(400, 32))
    assert health.embedding_std == pytest.approx(1, abs=0.02)
    assert 29 < health.effective_rank <= 32
    assert not health.collapsed


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_the_effective_rank_counts_directions(rank: int) -> None:
    basis = torch.linalg.qr(normal(16, 16))[0][:rank]
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * rank).reshape(-1, rank)
    health = examine(signs @ basis)
    assert health.effective_rank == pytest.approx(rank, rel=1e-6)


@pytest.mark.parametrize(
    "embeddings",
    [torch.ones(8, 16), torch.zeros(8, 16), torch.ones(8, 16) + 1e-4 * normal(8, 16)],
    ids=["equal", "zero", "nearly equal"],
)
def test_one_point_is_a_collapse(embeddings: torch.Tensor) -> None:
    assert examine(embeddings).collapsed


def test_one_line_is_a_collapse() -> None:
    line = torch.tensor([1.0, 0, 0, 0]) + torch.linspace(-0.05, 0.05, 9)[:, None] * torch.tensor([0.0, 1, 0, 0])
    assert examine(line).effective_rank == pytest.approx(1, abs=0.09)
    assert examine(line).collapsed


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_no_number_stops_the_run_at_once(loss: float) -> None:
    with pytest.raises(CheckFailed, match="step 3: the loss is .* lower learning_rate"):
        Watch(grace_steps=100).check_loss(3, loss)
    Watch(0).check_loss(3, 1e30)


def test_a_collapse_stops_the_run_once_it_lasts() -> None:
    watch = Watch(grace_steps=10)
    for step in range(10 + PATIENCE - 1):
        watch.check_health(step, BAD)
    with pytest.raises(CheckFailed, match="collapsed .*embedding_std 0.001.*; lower learning_rate"):
        watch.check_health(10 + PATIENCE, BAD)


def test_signs_that_pass_are_forgotten() -> None:
    watch = Watch(grace_steps=0)
    for step in range(20):
        watch.check_health(step, GOOD if step % PATIENCE == PATIENCE - 1 else BAD)
