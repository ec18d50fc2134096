"""An explainer without a network: the mask's own values are its weights, so it fits any explainee."""

import torch
from torch import Tensor, nn

from ltx.config import UserError
from ltx.models.explainee import Explainee
from ltx.models.explainer import Explainer
from ltx.models.function_target import FunctionTarget

MASK = "mask"  # its name, where others have that of a backbone
_SHORTER, _SIGMA = 14, 1.0  # cells along the shorter side; width of the blur, in cells


class FreeMask(Explainer):
    """One mask for all images until it is finetuned on each, as masks are in Fong & Vedaldi 2017.

    A backbone with a fresh head has to find in a few steps what its features mean for the explainee; on small
    networks it often collapses. Here nothing has to be found: each step moves the values themselves, blurred,
    so that neighbours move together. It starts at one half everywhere.

    Args:
        explainee: whose images it masks.
        cells: of the mask along the shorter side.

    Raises:
        UserError: images of a single row or column.
    """

    def __init__(self, explainee: Explainee | FunctionTarget, cells: int = _SHORTER):
        nn.Module.__init__(self)
        height, width = explainee.input_size
        shorter = min(height, width)
        if shorter < 2:
            raise UserError(f"'{explainee.name}' takes images of {height} x {width}; too small for a mask")
        cells = min(cells, shorter)
        self.grid = (round(cells * height / shorter), round(cells * width / shorter))
        self.name, self.activation, self.mask_scale = MASK, "sigmoid", 1
        self.precision, self.halo, self.metadata, self.condition = "float32", 0.0, None, None
        self.said = set()
        self.input_size, self.channels = (height, width), explainee.channels
        # So that the explainee runs image by image: its rounding in batches would show at such a rate.
        self.has_tokens, self.channels_last = False, False
        device = explainee.mean.device
        for key in ("mean", "std"):
            self.register_buffer(key, getattr(explainee, key).float(), persistent=False)
        for key, side in zip(("rows", "columns"), self.grid, strict=True):
            self.register_buffer(key, _blur(side, _SIGMA).to(device), persistent=False)
        self.logits = nn.Parameter(torch.zeros(1, 1, *self.grid, device=device, dtype=torch.float32))
        self.eval()

    def forward(self, images: Tensor, classes: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W) to the same mask for each, (B, 1, h, w) in [0, 1]."""
        mask = (self.rows @ self.logits @ self.columns.T).sigmoid()
        return mask.expand(len(images), -1, -1, -1)


def _blur(side: int, sigma: float) -> Tensor:
    """Weights (side, side) of a Gaussian along one axis; each row adds up to 1."""
    places = torch.arange(side, dtype=torch.float32)
    return (-(((places - places[:, None]) / sigma) ** 2) / 2).softmax(1)
