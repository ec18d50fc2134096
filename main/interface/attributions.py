"""LTX as the tools call it that people already use: captum, Quantus, pytorch-grad-cam.

They hand over images as the model takes them, already normalised; here they become pixels again.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ltx.config import UserError
from ltx.main.interface.explain import Explanation, explain
from ltx.models.explainee import Explainee
from ltx.models.explainer import Explainer
from ltx.models.free_mask import FreeMask


class LTXAttribution:
    """LTX with the interface of captum's attribution methods, callable like pytorch-grad-cam's.

    Both models stay as they are; each call explains from the explainer's own weights.

    Args:
        explainee: the classifier.
        explainer: makes the masks (default: a `FreeMask`).
        options: of `explain`, for every call (`steps`, `lr`, `objective`, ...).
    """

    def __init__(self, explainee: Explainee, explainer: Explainer | None = None, **options):
        self.explainee, self.options = explainee, options
        self.explainer = explainer or FreeMask(explainee)

    def attribute(
        self,
        inputs: Tensor | tuple[Tensor],
        target: int | Sequence[int] | Tensor | Callable | None = None,
        additional_forward_args=None,
        per_channel: bool = True,
        **options,
    ) -> Tensor | tuple[Tensor]:
        """Saliency maps of normalised images (B, C, H, W), in [0, 1].

        Also the `explanation_func` of captum's `infidelity` and `sensitivity_max`.

        Args:
            inputs: the images as the classifier takes them; in a tuple of one, the maps come in one too.
            target: as in `explain`.
            additional_forward_args: must be None, as the explainee takes images alone.
            per_channel: repeat the map for each channel, as captum's metrics want it; else (B, 1, H, W).
            options: of `explain`, instead of those of all calls.

        Returns:
            Maps of the inputs' shape and type, or (B, 1, H, W).

        Raises:
            UserError: several inputs, further arguments, or what `explain` refuses.
        """
        if isinstance(inputs, tuple):
            if len(inputs) != 1:
                raise UserError(f"LTX explains one tensor of images, not {len(inputs)}")
            one = self.attribute(inputs[0], target, additional_forward_args, per_channel, **options)
            return (one,)
        if additional_forward_args is not None:
            raise UserError("additional_forward_args: the explainee takes images alone; wrap the model")
        maps = self._explain(inputs, target, **options).saliency[:, None].to(inputs)
        return maps.expand_as(inputs).clone() if per_channel else maps

    def __call__(
        self, input_tensor: Tensor, targets: Sequence | Tensor | int | Callable | None = None, **options
    ) -> np.ndarray:
        """Maps (B, H, W) in [0, 1] of normalised images, called as the methods of pytorch-grad-cam are.

        Args:
            input_tensor: (B, C, H, W).
            targets: one per image, such as `ClassifierOutputTarget(281)` or any function of the image's own
                output; None for the top class.
            options: of `explain`; those of pytorch-grad-cam alone (`aug_smooth`, `eigen_smooth`) are refused.

        Raises:
            UserError: as `explain`.
        """
        given = [key for key in ("aug_smooth", "eigen_smooth") if options.pop(key, False)]
        if given:
            raise UserError(f"{given[0]}: LTX has no such smoothing")
        if isinstance(targets, list | tuple) and targets and callable(targets[0]):
            if all(hasattr(target, "category") for target in targets):
                targets = [int(target.category) for target in targets]
            else:
                alone = zip(input_tensor.split(1), targets, strict=True)
                maps = [self._explain(x, _of_rows(function), **options).saliency for x, function in alone]
                return torch.cat(maps).cpu().numpy()
        return self._explain(input_tensor, targets, **options).saliency.cpu().numpy()

    def _explain(self, inputs: Tensor, target, **options) -> Explanation:
        explainee = self.explainee
        pixels = inputs.detach().to(explainee.mean) * explainee.std + explainee.mean
        pixels = pixels.clamp(0, 1)  # what perturbs inputs may leave the range
        return explain(self.explainer, explainee, pixels, target, **(self.options | options))


def _of_rows(function: Callable) -> Callable:
    """A target for a whole batch from one for the output of a single image."""
    return lambda output: torch.stack([torch.as_tensor(function(row)).reshape(()) for row in output])


def quantus_explain(model: nn.Module, inputs, targets, **kwargs) -> np.ndarray:
    """Saliency maps for Quantus, as its `explain_func`.

    A metric may change the model's weights between calls, so the explainee is made anew each time.

    Args:
        model: the classifier, which takes `inputs` as they are.
        inputs: (B, C, H, W) array or tensor.
        targets: (B,) classes.
        kwargs: `mean` and `std` of the normalisation of `inputs` (default: none, where they lie in [0, 1]);
            `explainer`, an `Explainer` or the name of a backbone (default: a `FreeMask`);
            `multi_label`; and the options of `explain` (`steps`, ...). What Quantus adds is ignored.

    Returns:
        (B, 1, H, W) in [0, 1].

    Raises:
        UserError: inputs that are normalised, without `mean` and `std`; or what `explain` refuses.
    """
    inputs = torch.as_tensor(np.asarray(inputs) if not isinstance(inputs, Tensor) else inputs).float()
    mean, std = kwargs.get("mean"), kwargs.get("std")
    if mean is None or std is None:
        if inputs.min() < 0 or inputs.max() > 1:
            raise UserError("inputs are normalised: pass mean and std in explain_func_kwargs")
        mean, std = (0.0,) * inputs.shape[1], (1.0,) * inputs.shape[1]
    explainee = Explainee.from_module(
        model, mean, std, tuple(inputs.shape[-2:]), multi_label=kwargs.get("multi_label", False)
    )
    explainer = kwargs.get("explainer")
    if isinstance(explainer, str):
        explainer = Explainer.from_name(explainer, explainee)
    known = ("steps", "lr", "objective", "variant", "batch_size")
    options = {key: kwargs[key] for key in known if kwargs.get(key) is not None}
    target = torch.as_tensor(np.asarray(targets.cpu() if isinstance(targets, Tensor) else targets)).long()
    attribution = LTXAttribution(explainee, explainer, **options)
    maps: Tensor = attribution.attribute(inputs, target.reshape(-1), per_channel=False)
    return maps.cpu().numpy()
