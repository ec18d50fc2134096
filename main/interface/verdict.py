"""Signs that an explanation has failed, from its scores and its mask."""

from torch import Tensor

_WELL_BELOW, _ABOUT_EQUAL = 0.5, 0.85  # parts of the class's probability on the image
_EMPTY_PEAK, _EMPTY_AREA, _FULL_AREA = 0.05, 0.001, 0.95
_ONE_CELL, _FEWEST_CELLS = 0.9, 9  # share of the mask's mass, in a mask of that many cells


def warnings_of(scores: dict[str, Tensor], token_masks: Tensor) -> list[list[str]]:
    """Return for each of B explanations why it looks failed, in short sentences; nothing where it does not.

    Args:
        scores: `Explanation.scores`, (B,) each; those of a function, which are of any scale, are not judged.
        token_masks: (B, h, w) in [0, 1].
    """
    known = {name: values.tolist() for name, values in scores.items() if name.endswith("probability")}
    rows = [dict(zip(known, values, strict=True)) for values in zip(*known.values(), strict=True)]
    rows = rows or [{}] * len(token_masks)
    return [
        [*_of_mask(mask), *_of_scores(row)]
        for row, mask in zip(rows, token_masks.detach().float().cpu(), strict=True)
    ]


def _of_scores(row: dict[str, float]) -> list[str]:
    whole, masked, complement = (row.get(f"{part}probability") for part in ("", "masked_", "complement_"))
    if whole is None or masked is None or complement is None:
        return []
    if masked < _WELL_BELOW * whole and complement > _ABOUT_EQUAL * whole:
        return ["what is kept gives less than half of the class's probability, and the rest nearly all of it"]
    return []


def _of_mask(mask: Tensor) -> list[str]:
    area, peak = float(mask.mean()), float(mask.max())
    if peak < _EMPTY_PEAK or area < _EMPTY_AREA:
        return [f"the mask is empty: it keeps {area:.1%}, and its peak is {peak:.2f}"]
    if area > _FULL_AREA:
        return [f"the mask is full: it keeps {area:.1%}"]
    if mask.numel() >= _FEWEST_CELLS and peak > _ONE_CELL * float(mask.sum()):
        return [f"the mask is a single cell of {mask.shape[-2]} x {mask.shape[-1]}"]
    return []
