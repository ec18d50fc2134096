"""Own models whose right region is known: the share of maps whose maximum lies there.

    python tests/benchmarks/own_models.py [--pictures 50] [--models timm hf one] [--folder DIR]

Trains three classifiers on `tests/support/patches.py`, for about a minute each on two cores: timm's
resnet18 with three classes and a normalisation of its own, a ViT of Hugging Face saved with `save_pretrained`
(left out without transformers), and a small ResNet of one logit that answers whether the patch is red.
Explains held-out pictures that the model has right (those that it answers with yes, as no region says no),
from Python and from the command line: by a free mask, which needs no training, and with `--pretrain` by an
explainer that `run_seg_cls.py` pretrained on 200 other pictures. Models that lie in `--folder` are not
trained again. `hit` is the share of maps whose maximum lies on the patch (6% of the picture), `kept` the
share whose masked probability is at least 0.9 of the probability.
"""

import argparse
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from common import close, show
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from ltx import Explainee, FreeMask, explain, read_explainer
from ltx.config import ROOT
from ltx.main.runs.mask_files import read_unit, unit_files
from ltx.tests.support import patches

SIDE, BATCH = 96, 16
TRAINING, PRETRAINING, HELD_OUT = 10_000, 1, 2  # seeds of the sets
SCORES = ("probability", "masked_probability", "complement_probability", "mask_area")


@dataclass(frozen=True)
class Own:
    """An own model: how it is made, and how the command line and Python name it."""

    name: str
    checkpoint: Path | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    is_question: bool = False

    @property
    def flags(self) -> list[str]:
        """Of the command line."""
        flags = ["--explainee-model-name", self.name]
        if self.checkpoint is not None:
            flags += ["--explainee-checkpoint", str(self.checkpoint), "--input-size", str(SIDE)]
            flags += ["--mean", *map(str, self.mean), "--std", *map(str, self.std)]
        return flags

    def load(self) -> Explainee:
        """From Python, as a module that the user holds."""
        if self.checkpoint is None:
            return Explainee.from_name(self.name)
        import timm

        model = timm.create_model(self.name, num_classes=1 if self.is_question else len(patches.NAMES))
        model.load_state_dict(torch.load(self.checkpoint, weights_only=True))
        return Explainee.from_module(model, self.mean, self.std, SIDE, name=self.name)

    def draw(self, n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures, classes and regions, see `patches.draw`; of a question the answers, 1 for yes."""
        pictures, classes, where = patches.draw(n, seed, SIDE)
        return pictures, (classes == 0).long() if self.is_question else classes, where


def train(model: nn.Module, own: Own, steps: int, lr: float = 1e-3) -> None:
    """Fits a classifier to pictures drawn afresh at each step."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (own.mean, own.std))
    optimiser = torch.optim.AdamW(model.parameters(), lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, steps, pct_start=0.15)
    begin = time.perf_counter()
    for step in range(steps):
        pictures, classes, _ = own.draw(BATCH, TRAINING + step)
        output = model.train()((pictures / 255 - mean) / std)
        logits = getattr(output, "logits", output)
        if logits.shape[1] == 1:
            loss = F.binary_cross_entropy_with_logits(logits[:, 0], classes.float())
        else:
            loss = F.cross_entropy(logits, classes)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    model.eval()
    print(f"{own.name}: {steps} steps, {time.perf_counter() - begin:.0f} s, loss {loss.item():.3f}")


def make_timm(folder: Path) -> Own:
    """resnet18 with three classes."""
    import timm

    own = Own("resnet18", folder / "resnet18.pth", (0.4, 0.42, 0.38), (0.22, 0.2, 0.25))
    if not own.checkpoint.is_file():
        train(model := timm.create_model(own.name, num_classes=3), own, steps=80)
        torch.save(model.state_dict(), own.checkpoint)
    return own


def make_one(folder: Path) -> Own:
    """A small ResNet with one logit: is the patch red?"""
    import timm

    own = Own("test_resnet", folder / "one.pth", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), True)
    if not own.checkpoint.is_file():
        train(model := timm.create_model(own.name, num_classes=1), own, steps=150)
        torch.save(model.state_dict(), own.checkpoint)
    return own


def make_hf(folder: Path) -> Own:
    """A small ViT of transformers."""
    from transformers import ViTConfig, ViTForImageClassification

    own = Own(f"hf:{folder / 'vit'}", None, (0.5,) * 3, (0.5,) * 3)
    if not (folder / "vit" / "config.json").is_file():
        cfg = ViTConfig(
            hidden_size=64, num_hidden_layers=4, num_attention_heads=4, intermediate_size=128,
            image_size=SIDE, patch_size=8, id2label=dict(enumerate(patches.NAMES)),
        )  # fmt: skip
        train(model := ViTForImageClassification(cfg), own, steps=250)
        model.save_pretrained(folder / "vit")
        processor = {"image_mean": own.mean, "image_std": own.std, "size": {"height": SIDE, "width": SIDE}}
        (folder / "vit" / "preprocessor_config.json").write_text(json.dumps(processor))
    return own


MAKERS = {"timm": make_timm, "hf": make_hf, "one": make_one}


def write_pictures(folder: Path, pictures: Tensor, classes: Tensor, in_class_folders: bool) -> Path:
    """PNG files, in one folder or in one a class; those of another call go."""
    shutil.rmtree(folder, ignore_errors=True)
    for index, (picture, label) in enumerate(zip(pictures, classes.tolist(), strict=True)):
        place = folder / f"class_{label}" if in_class_folders else folder
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(place / f"{index:03d}.png")
    return folder


def command(script: str, *flags) -> dict:
    """The closing line of a script."""
    done = subprocess.run(
        [sys.executable, str(ROOT / script), *map(str, flags)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])


def judged(maps: Tensor, where: Tensor, scores: dict[str, Tensor]) -> dict[str, float]:
    """Figures of maps (n, H, W) over the true regions (n, H, W)."""
    hit = where.flatten(1).gather(1, maps.flatten(1).argmax(1)[:, None])[:, 0]
    kept = scores["masked_probability"] >= 0.9 * scores["probability"]
    means = {name: scores[name].float().mean().item() for name in SCORES}
    return {"hit": hit.float().mean().item(), "kept": kept.float().mean().item()} | means


def by_command(own: Own, folder: Path, where: Tensor, *flags) -> dict[str, float]:
    """Figures of `explain.py` over a folder of pictures."""
    begin = time.perf_counter()
    closing = command(
        "main/explain.py", "--input", folder, *own.flags, *flags, "--device", "cpu",
        "--default-root-dir", folder.parent / "runs",
    )  # fmt: skip
    seconds = (time.perf_counter() - begin) / len(where)
    units = [read_unit(path) for path in unit_files(Path(closing["run"]))]
    shown = next(iter(closing["results"]))
    maps = torch.cat([unit.maps(shown, (SIDE, SIDE)) for unit in units])
    scores = {name: torch.cat([torch.from_numpy(unit.arrays[name]) for unit in units]) for name in SCORES}
    return judged(maps, where, scores) | {"seconds": seconds}


def by_python(own: Own, explainer, pictures: Tensor, where: Tensor) -> dict[str, float]:
    """Figures of `ltx.explain`."""
    explainee = own.load()
    begin = time.perf_counter()
    made = explain(
        explainer or FreeMask(explainee), explainee, pictures, steps=None if explainer is None else 25
    )
    seconds = (time.perf_counter() - begin) / len(where)
    return judged(made.saliency, where, made.scores) | {"seconds": seconds}


def held_out(own: Own, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures that a model has right, their classes and regions."""
    pictures, classes, where = own.draw(4 * n, HELD_OUT)
    with torch.no_grad():
        found = own.load()(pictures / 255).argmax(1)
    print(f"{own.name}: right on {(found == classes).float().mean():.1%} of {len(found)}")
    right = ((found == classes) & (classes > 0 if own.is_question else True)).nonzero()[:n, 0]
    return pictures[right], classes[right], where[right]


def measure(own: Own, folder: Path, options) -> dict[str, dict]:
    """All figures of one model."""
    pictures, classes, where = held_out(own, options.pictures)
    place = write_pictures(folder / "held-out", pictures, classes, False)
    found = {}
    if "python" in options.doors:
        found["fresh, Python"] = by_python(own, None, pictures, where)
    if "command" in options.doors:
        found["fresh, command"] = by_command(own, place, where)
    if options.pretrain:
        training = write_pictures(folder / "training", *own.draw(240, PRETRAINING)[:2], True)
        begin = time.perf_counter()
        closing = command(
            "main/seg_classification/run_seg_cls.py", *own.flags, "--images-path", training,
            "--recipe", "ordered", "--train-images", 200, "--val-images", 40, "--n-epochs", options.epochs,
            "--default-root-dir", folder / "pretrained", "--num-workers", 0,
        )  # fmt: skip
        print(f"{own.name}: pretrained in {time.perf_counter() - begin:.0f} s: {closing}")
        best = Path(closing["run"]) / "best.safetensors"
        flags = ("--explainer-checkpoint", best, "--steps", 25)
        if "python" in options.doors:
            found["pretrained, Python"] = by_python(own, read_explainer(best), pictures, where)
        if "command" in options.doors:
            found["pretrained, command"] = by_command(own, place, where, *flags)
    return found


def main() -> None:
    """Prints the table and the closing line."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--models", nargs="+", default=list(MAKERS), choices=list(MAKERS))
    flags.add_argument("--doors", nargs="+", default=["python", "command"], choices=["python", "command"])
    flags.add_argument("--pictures", type=int, default=50, help="held-out pictures of each model")
    flags.add_argument("--pretrain", action="store_true", help="also pretrain an explainer of each model")
    flags.add_argument("--epochs", type=int, default=3, help="of the pretraining")
    flags.add_argument(
        "--folder", type=Path, help="place of models, pictures and runs (default: a temporary one)"
    )
    options = flags.parse_args()
    root = options.folder or Path(tempfile.mkdtemp())
    results = {}
    for key in options.models:
        if key == "hf" and importlib.util.find_spec("transformers") is None:
            print("hf: left out, transformers is not installed")
            continue
        torch.manual_seed(0)
        (folder := root / key).mkdir(parents=True, exist_ok=True)
        for how, figures in measure(MAKERS[key](folder), folder, options).items():
            results[f"{key}, {how}"] = show(f"{key}, {how}", figures)
    close(results)


if __name__ == "__main__":
    main()
