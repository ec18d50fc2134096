"""Averaged gradients, from captum: SmoothGrad and Integrated Gradients."""

import torch
from torch import Tensor

from ltx.main.baselines.base import FORWARD_BATCH, Batch, image_generator
from ltx.main.baselines.options import BaselineOptions
from ltx.models.explainee import Explainee


def smoothgrad(explainee: Explainee, batch: Batch, options: BaselineOptions) -> Tensor:
    """Gradient of the class's logit averaged over noisy copies, its largest absolute value over the channels.

    Smilkov et al. 2017: `--smoothgrad-samples` copies, Gaussian noise of `--smoothgrad-noise` times the range
    of the image. The noise depends on the seed and the image's name alone.
    """
    from captum.attr import NoiseTunnel, Saliency

    tunnel, maps = NoiseTunnel(Saliency(explainee)), []
    for image, label, name in zip(batch.images, batch.classes.tolist(), batch.names, strict=True):
        spread = options.smoothgrad_noise * (image.max() - image.min()).item()
        # captum draws from PyTorch's global random numbers.
        with torch.random.fork_rng(devices=[image.device] if image.is_cuda else []):
            torch.manual_seed(image_generator(options.seed, name).initial_seed())
            gradient = tunnel.attribute(
                image[None],
                nt_type="smoothgrad",
                nt_samples=options.smoothgrad_samples,
                nt_samples_batch_size=min(options.smoothgrad_samples, FORWARD_BATCH),
                stdevs=spread,
                target=label,
                abs=False,
            )
        maps.append(gradient[0].abs().amax(0))
    return torch.stack(maps).detach()


def integrated_gradients(explainee: Explainee, batch: Batch, options: BaselineOptions) -> Tensor:
    """Integrated Gradients from a black image, summed over the channels, absolute value.

    Sundararajan et al. 2017, `--ig-steps` Gauss-Legendre steps.
    """
    from captum.attr import IntegratedGradients

    attribution = IntegratedGradients(explainee).attribute(
        batch.images,
        baselines=0.0,
        target=batch.classes,
        n_steps=options.ig_steps,
        internal_batch_size=max(FORWARD_BATCH, len(batch.images)),
    )
    return attribution.sum(1).abs().detach()
