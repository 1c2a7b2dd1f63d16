"""Point clouds to one vector: a shared MLP per point, then the maximum (DP3, arXiv 2403.03954, section 3.3)."""

from torch import Tensor, nn

__all__ = ["PointEncoder"]


class PointEncoder(nn.Module):
    """Maps clouds [...,N,C] (x, y, z [m] and optional colours) to [...,width], whatever the order of the points."""

    def __init__(self, channels: int, width: int, hidden: tuple[int, ...] = (64, 128, 256)):
        super().__init__()
        sizes = (channels, *hidden)
        layers: list[nn.Module] = []
        for inputs, outputs in zip(sizes, hidden, strict=False):
            layers += [nn.Linear(inputs, outputs), nn.LayerNorm(outputs), nn.ReLU()]
        self.per_point = nn.Sequential(*layers)
        self.outputs = nn.Sequential(nn.Linear(hidden[-1], width), nn.LayerNorm(width))

    def forward(self, points: Tensor) -> Tensor:
        """Return [...,width]."""
        return self.outputs(self.per_point(points).amax(-2))
