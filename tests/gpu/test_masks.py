"""Masks made on CUDA against those made on the CPU."""

import pytest
import torch

from ltx.datasets.build import stack
from ltx.datasets.digits import DigitsOnPhotos
from ltx.main.perturbation_eval.map_view import ImageBatch, MapView
from ltx.main.perturbation_eval.metrics import choose_metrics
from ltx.main.seg_classification.finetuning import Settings, finetune, pltx
from ltx.models.explainee import Explainee
from ltx.models.explainer import Explainer
from ltx.models.explainer_files import BEST_FILE, read_explainer
from ltx.models.losses import Objective
from ltx.models.masking import upsample
from ltx.models.registry import create_model, input_spec, pair_folder

SHIPPED = ("vit_digits", "efficientnet_lite0")
PUBLISHED = ("vit_base_224", "vit_small_224", "resnet", "densenet")
N, TOLERANCE = 2, 1e-4


def pair(name: str) -> tuple[Explainer, Explainee]:
    """The shipped pair of a name; random weights for the published architectures."""
    torch.manual_seed(0)
    if name in SHIPPED:
        explainee = Explainee.from_name(name)
        return read_explainer(pair_folder(name, name) / "predicted" / BEST_FILE), explainee
    model = create_model(name)
    explainee = Explainee(model, input_spec(model), name)
    return Explainer.for_explainee(name, explainee), explainee


@pytest.fixture(params=SHIPPED + PUBLISHED)
def both(request):
    """Masks and figures by device, images and maps of the CPU, and the explainee, back there."""
    explainer, explainee = pair(request.param)
    images = stack(DigitsOnPhotos("test", image_size=explainee.input_size), range(N))
    with torch.no_grad():
        classes = explainee(images).argmax(1)
    # Rounded kinks: else the last bit of a CNN's activation may turn a gradient from 0 to 1.
    settings = Settings(n_steps=3, lr=5e-5, kink_width=0.3, select=False)
    made = {}
    for device in ("cpu", "cuda"):
        explainer, explainee = explainer.to(device), explainee.to(device)
        given = [values.to(device) for values in (images, classes)]
        masks, figures = finetune(explainer, explainee, *given, given[1], Objective(), settings)
        masks["forward"] = pltx(explainer, given[0])["pltx"]
        made[device] = {name: value.cpu() for name, value in (masks | {"loss": figures["loss"]}).items()}
    return made, images, classes, explainee


def test_masks_and_losses_are_those_of_the_cpu(both):
    made, *_ = both
    for name, expected in made["cpu"].items():
        torch.testing.assert_close(made["cuda"][name], expected, rtol=1e-4, atol=TOLERANCE, msg=name)


def test_scores_are_those_of_the_cpu(both):
    made, images, classes, explainee = both
    maps = upsample(made["cpu"]["last"], images.shape[-2:])
    found = {}
    for device in ("cuda", "cpu"):
        explainee = explainee.to(device)
        given = [values.to(device) for values in (images, classes)]
        view = MapView(ImageBatch(explainee, *given, batch_size=16), maps.to(device), maps.to(device))
        metrics = choose_metrics("DEL,INS,ADP,ADP_minmax,mask_area,gini")
        found[device] = torch.stack([metric.per_image(view).double().cpu() for metric in metrics])
    torch.testing.assert_close(found["cuda"], found["cpu"], rtol=1e-3, atol=1e-2)
