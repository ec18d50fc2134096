"""A toy set whose right region is known: a coloured patch on a noisy background decides the class."""

import torch
from torch import Tensor
from torch.nn import functional as F

COLOURS = ((0.85, 0.15, 0.15), (0.15, 0.75, 0.2), (0.2, 0.25, 0.9))
NAMES = ("red", "green", "blue")


def draw(n: int, seed: int, side: int = 96) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures with one patch each, whose colour is the class.

    Args:
        n: pictures.
        seed: of all that is random.
        side: of the pictures, in pixels; the patch takes a quarter of it.

    Returns:
        uint8 pictures (n, 3, side, side), int64 classes (n,), and where the patch is, bool (n, side, side).
    """
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    # Grey clouds, faint clouds of colour, and grain.
    clouds = F.interpolate(noise(n, 1, 6, 6), side, mode="bicubic", align_corners=False)
    tints = F.interpolate(noise(n, 3, 4, 4), side, mode="bicubic", align_corners=False)
    pictures = 0.15 + 0.5 * clouds + 0.25 * (tints - 0.5) + 0.15 * (noise(n, 3, side, side) - 0.5)
    classes = torch.randint(len(COLOURS), (n,), generator=generator)
    patch = side // 4
    corners = torch.randint(side - patch + 1, (n, 2), generator=generator)
    places = torch.arange(side)
    rows, columns = (
        (places >= corners[:, axis, None]) & (places < corners[:, axis, None] + patch) for axis in (0, 1)
    )
    where = rows[:, :, None] & columns[:, None, :]
    colour = torch.tensor(COLOURS)[classes][:, :, None, None]
    painted = colour + 0.2 * (noise(n, 1, side, side) - 0.5)
    pictures = torch.where(where[:, None], painted, pictures).clamp(0, 1)
    return (255 * pictures).round().to(torch.uint8), classes, where
