"""FiLM in the MLP: products of what is seen and what is asked."""

import torch

from robolearn.nets.mlp import MLPConfig

SHAPES = ((1, 6), (1, 3))


def _fit(film: bool, steps: int = 300) -> float:
    """Train a tiny network to return the one of three seen pairs that a one-hot instruction names."""
    torch.manual_seed(0)
    network = MLPConfig(width=32, depth=1, film=film).build(1, 2, SHAPES)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    loss = torch.zeros(())
    for _ in range(steps):
        seen, asked = torch.randn(256, 3, 2), torch.randint(3, (256,))
        condition = (seen.flatten(1)[:, None], torch.eye(3)[asked][:, None])
        guess = network(torch.zeros(256, 1, 2), torch.zeros(256), condition)
        loss = (guess[:, 0] - seen[torch.arange(256), asked]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def test_film_learns_to_pick_by_instruction():
    with_film, without = _fit(True), _fit(False)
    assert with_film < 0.01
    assert with_film < without


def test_film_starts_no_new_parameters_without_the_option():
    assert not any("film" in name for name in MLPConfig().build(4, 2, SHAPES).state_dict())
