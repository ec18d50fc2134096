"""Compares masks, losses and metrics with the authors' code, and prints the largest differences.

    python tests/parity.py FOLDER [--updates 3] [--images 4]

FOLDER is a checkout of the authors' repository (https://github.com/LTX-Code/LTX); nothing of it is copied. It
needs `transformers<5`, `pytorch-lightning` and `pandas` besides this project's requirements; a folder that
`pip install --target` filled will do, on PYTHONPATH. What the checkout only imports for plots and logs may be
missing. Ends with exit code 1 where a difference is above its limit.
"""

import argparse
import importlib.machinery
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn

run_path(str(Path(__file__).resolve().parents[1] / "__init__.py"))

from ltx.datasets.imagenet import open_folder
from ltx.main.perturbation_eval.map_view import MapView
from ltx.main.perturbation_eval.metrics import METRICS
from ltx.main.seg_classification.finetuning import Settings, finetune
from ltx.main.segmentation_eval.metrics import readings
from ltx.models.explainee import Explainee, read_class
from ltx.models.explainer_files import read_explainer
from ltx.models.losses import Objective, mask_loss
from ltx.models.masking import upsample

SIDE, CLASSES = 224, 1000
RATE = 1e-6  # moves masks of random weights, and does not empty them
# Imported there for plots, logs and downloads; nothing that is compared uses them.
_UNUSED = ("icecream", "wandb", "cv2", "imageio", "skimage", "einops", "seaborn")
Row = tuple[str, float, float, float]


class _Stubs:
    """Importer of last resort: empty modules in place of those that are missing and not used."""

    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name.split(".")[0] in _UNUSED else None

    def create_module(self, spec):
        module = MagicMock(name=spec.name)
        module.__path__ = []
        return module

    def exec_module(self, module):
        pass


def authors_code(folder: Path) -> SimpleNamespace:
    """The parts of the checkout that are compared."""
    if not (folder / "main" / "seg_classification" / "run_seg_cls_opt.py").is_file():
        sys.exit(f"error: {folder} is no checkout of the authors' repository")
    sys.path.insert(0, str(folder))
    sys.meta_path.append(_Stubs())
    for name in ("resnet101", "densenet201"):  # fetched from the network by an import
        setattr(torchvision.models, name, lambda **more: nn.Identity())
    seg_classification, shared = "main.seg_classification", import_module("transformers")
    modelling = import_module("transformers.modeling_utils")
    pruning = import_module("transformers.pytorch_utils")
    for name in ("find_pruneable_heads_and_indices", "prune_linear_layer"):  # moved since transformers 4.15
        setattr(modelling, name, getattr(modelling, name, getattr(pruning, name, None)))
    segmentation = import_module("main.segmentation_eval.segmentation_model_opt")
    return SimpleNamespace(
        vit_config=import_module("config").config["vit"],
        vit=shared.ViTForImageClassification,
        shape=shared.ViTConfig(num_labels=CLASSES),
        masks=import_module("models.modeling_vit_patch_classification").ViTForMaskGeneration,
        model=import_module(
            f"{seg_classification}.image_classification_with_token_classification_model"
        ).ImageClassificationWithTokenClassificationModel,
        freeze=import_module("utils.vit_utils").freeze_multitask_model,
        losses=import_module(f"{seg_classification}.output_dataclasses.lossloss").LossLoss,
        perturbation=import_module("evaluation.perturbation_tests.seg_cls_perturbation_tests"),
        evaluation=import_module(f"{seg_classification}.evaluation_functions"),
        segmentation=segmentation.OptImageClassificationWithTokenClassificationModelSegmentation,
    )


@torch.no_grad()
def random_pair(theirs: SimpleNamespace, path: Path):
    """Their model of a ViT-Base pair with random weights, written to `path` in the published layout."""
    torch.manual_seed(11)
    explainee, explainer = theirs.vit(theirs.shape), theirs.masks(theirs.shape)
    for model in (explainee.eval(), explainer.eval()):
        for value in model.parameters():
            if value.ndim == 1:
                value.add_(0.2 * torch.randn_like(value))
    explainer.patch_classifier.weight.mul_(5)
    explainer.patch_classifier.bias.sub_(explainer(2 * pixels(2) - 1)[1].logit().mean())
    explainee.classifier.bias.mul_(4)  # else the top class changes with the first pixels
    model = theirs.model(
        explainee, explainer, warmup_steps=1, total_training_steps=1, plot_path="", experiment_path="",
        is_explainer_convnet=False, is_explainee_convnet=False, lr=RATE, activation_function="sigmoid",
        train_model_by_target_gt_class=True, use_logits_only=False, img_size=SIDE, patch_size=16,
        mask_loss="bce", mask_loss_mul=50, prediction_loss_mul=1,
    )  # fmt: skip
    theirs.freeze(model=model)
    facts = {"epoch": 30, "global_step": 969, "pytorch-lightning_version": "1.5.10", "callbacks": {}}
    torch.save(facts | {"state_dict": model.state_dict()}, path)
    return model.eval()


def pixels(n: int) -> Tensor:
    """Smooth random images (n, 3, H, W) in [0, 1]."""
    coarse = torch.rand(n, 3, 14, 14, generator=torch.Generator().manual_seed(3))
    return nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear")


def row(name: str, ours, theirs, limit: float) -> Row:
    """Largest difference of two arrays or numbers, and the largest of theirs."""
    ours, theirs = (
        (values.detach() if isinstance(values, Tensor) else torch.from_numpy(np.asarray(values))).double()
        for values in (ours, theirs)
    )
    return name, (ours - theirs).abs().max().item(), theirs.abs().max().item(), limit


def compare_networks(theirs, model, explainee, explainer, images: Tensor) -> Iterator[Row]:
    """Logits, and token masks by activation."""
    normalised = (images - 0.5) / 0.5
    with torch.no_grad():
        logits = model.vit_for_classification_image(normalised).logits
        yield row("logits", explainee(images), logits, 1e-4)
        for activation, own in (
            ("softmax", "softmax_released"), ("relu", "relu_released"), ("sigmoid", "sigmoid")
        ):  # fmt: skip
            theirs.vit_config["activation_function"], explainer.activation = activation, own
            masks = model.vit_for_patch_classification(normalised)[1]
            yield row(f"token masks, {own}", explainer(images), masks, 1e-5)


def compare_losses(theirs, n_tokens: int = 196) -> Iterator[Row]:
    """Mask losses and their gradients, and the whole objective, on random masks and logits."""
    generator = torch.Generator().manual_seed(5)
    scores = torch.randn(3, 1, 14, n_tokens // 14, generator=generator)
    logits = 3 * torch.randn(3, CLASSES, generator=generator)
    unmasked, classes = 3 * torch.randn(3, CLASSES, generator=generator), torch.tensor([1, 5, 900])
    for kind in ("bce", "l1", "entropy_softmax"):
        activation = "softmax" if kind == "entropy_softmax" else "sigmoid"
        masks = scores.sigmoid() if activation == "sigmoid" else scores.flatten(1).softmax(1).view_as(scores)
        masks.requires_grad_(True)
        for target, logits_only in ((True, False), (False, False), (True, True)):
            found = theirs.losses(mask_loss=kind, mask_loss_mul=50, prediction_loss_mul=1)(
                output=logits, target=unmasked, tokens_mask=masks, target_class=classes,
                activation_function=activation, train_model_by_target_gt_class=target,
                use_logits_only=logits_only, is_ce_neg=False,
            )  # fmt: skip
            asked = classes if target else unmasked.argmax(1)
            objective = Objective(kind, 50.0, 1.0, use_logits_only=logits_only)
            own = objective(lambda images: logits, torch.zeros(3, 3, SIDE, SIDE), masks, asked)["loss"]
            name = f"loss, {kind}, {'target' if target else 'predicted'}{', logits' if logits_only else ''}"
            yield row(name, own.mean(), found.loss, 1e-4)
        gradients = [
            torch.autograd.grad(loss, masks)[0] * masks.numel()
            for loss in (mask_loss(masks, kind).mean(), found.mask_loss)
        ]
        yield row(f"gradient of {kind} x tokens", *gradients, 1e-3)


def compare_updates(theirs, model, explainee, explainer, image: Tensor, updates: int) -> Iterator[Row]:
    """Masks of one image after 0 ... `updates` steps of finetuning at a constant rate."""
    target, normalised = torch.tensor([7]), (image - 0.5) / 0.5
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE)
    for update in range(updates + 1):
        found = model(normalised, image_resized=image, target_class=target)
        masks, figures = finetune(
            explainer, explainee, image, target, target, Objective(), Settings(update + 1, RATE, select=False)
        )
        yield row(f"mask after {update} updates", masks["last"], found.tokens_mask[:, 0], 1e-4)
        loss = found.lossloss_output.loss
        yield row(f"loss after {update} updates", figures["loss"][0, -1], loss, 1e-3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def without_ties(maps: Tensor) -> Tensor:
    """Maps (n, H, W) in [0, 1] of the same order, ties broken by pixel index, no two pixels alike."""
    flat = maps.flatten(1)
    ranks = torch.sort(-flat, dim=1, stable=True).indices.argsort(1)
    return (1 - ranks / flat.shape[1]).view_as(maps)


def compare_perturbation(theirs, model, explainee, images: Tensor, maps: Tensor) -> Iterator[Row]:
    """POS, NEG, DEL, INS, ADP and PIC of maps (n, H, W) without ties, for the predicted classes."""
    with torch.no_grad():
        classes = explainee(images).argmax(1)
        view = MapView(explainee, images, classes, maps, maps, read_class(explainee, images, classes))
        own = {metric.name: metric.per_image(view) for metric in METRICS if not metric.slow}
        network = model.vit_for_classification_image
        for side, names in (("POS", ("POS", "DEL")), ("NEG", ("NEG", "INS"))):
            aucs = []
            for image, saliency, target in zip(images, maps, classes, strict=True):
                outputs = [{"image_resized": image[None], "image_mask": saliency[None, None]}]
                outputs[0]["target_class"] = target[None]
                aucs.append(
                    theirs.perturbation.eval_perturbation_test(
                        Path(), network, outputs, perturbation_type=side, is_calculate_deletion_insertion=True
                    )
                )
            for name, values in zip(names, zip(*aucs, strict=True), strict=True):
                yield row(name, own[name], values, 1e-3)
        pairs = [
            {"image_resized": image[None], "image_mask": saliency[None, None]}
            for image, saliency in zip(images, maps, strict=True)
        ]
        found = theirs.evaluation.infer_adp_pic(network, pairs, classes.tolist(), False)
    yield row("ADP", own["ADP"].mean(), found["averaged_drop_percentage"], 1e-3)
    yield row("PIC", own["PIC"].mean(), found["percentage_increase_in_confidence"], 1e-6)


def compare_segmentation(theirs, maps: Tensor) -> Iterator[Row]:
    """PA, mIoU, mAP_released and mF1_released of a set of maps (n, H, W)."""
    generator = torch.Generator().manual_seed(9)
    objects = torch.rand(len(maps), 1, 6, 6, generator=generator)
    labels = (upsample(objects, (SIDE, SIDE))[:, 0] > 0.6).long()
    (reading,) = readings(has_void=False)
    columns = np.array(
        [
            reading.per_image(label.numpy(), saliency.numpy())
            for label, saliency in zip(labels, maps, strict=True)
        ]
    )
    own = dict(zip([metric.name for metric in reading.named_metrics], reading.totals(columns), strict=True))
    parts = [
        theirs.segmentation.eval_results_per_bacth(None, saliency[None, None], None, label[None])[:6]
        for saliency, label in zip(maps.clone(), labels, strict=True)
    ]
    correct, labelled, inter, union, ap, f1 = (np.array(values) for values in zip(*parts, strict=True))
    found = {
        "PA": correct.sum() / labelled.sum(),
        "mIoU": (inter.sum(0) / union.sum(0)).mean(),
        "mAP_released": ap.mean(),
        "mF1_released": f1.mean(),
    }
    for name, value in found.items():
        yield row(name, own[name], 100 * value, 1e-9)


def compare_labels(theirs, folder: Path, place: Path) -> Iterator[Row]:
    """Labels of five images by both of the repository's label files."""
    names = [f"ILSVRC2012_val_{i:08d}.JPEG" for i in (1, 2, 5, 40_000, 50_000)]
    for name in names:
        Image.new("RGB", (8, 8)).save(place / name)
    files = folder / "gt_data_imagenet"
    known = theirs.evaluation.get_gt_classes(files / "val ground truth.txt")
    wanted = [known[int(name[-13:-5]) - 1] for name in names]
    for file in ("val ground truth.txt", "val_ground_truth_2012.csv"):
        yield row(f"labels, {file}", open_folder(place, (8, 8), files / file).labels, wanted, 0)


def main() -> None:
    """Runs every comparison and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="checkout of the authors' repository")
    parser.add_argument("--updates", type=int, default=3, help="steps of finetuning")
    parser.add_argument("--images", type=int, default=4, help="images that are compared")
    options = parser.parse_args()
    theirs, images = authors_code(options.folder.resolve()), pixels(options.images)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "pair.ckpt"
        model = random_pair(theirs, path)
        explainee, explainer = Explainee.from_name("vit_base_224", path), read_explainer(path)
        path.unlink()
        with torch.no_grad():
            maps = upsample(explainer(images), (SIDE, SIDE))[:, 0]
        rows = [
            *compare_labels(theirs, options.folder, Path(place)),
            *compare_losses(theirs),
            *compare_networks(theirs, model, explainee, explainer, images),
            *compare_segmentation(theirs, maps),
            *compare_perturbation(theirs, model, explainee, images, without_ties(maps)),
            *compare_updates(theirs, model, explainee, explainer, images[:1], options.updates),
        ]
    width = max(len(name) for name, *_ in rows)
    print(f"\n{'compared':{width}}  largest  difference   limit")
    for name, difference, largest, limit in rows:
        mark = "" if difference <= limit else "  ABOVE"
        print(f"{name:{width}}  {largest:7.1e}     {difference:7.1e} {limit:7.0e}{mark}")
    sys.exit(any(not difference <= limit for _, difference, _, limit in rows))


if __name__ == "__main__":
    main()
