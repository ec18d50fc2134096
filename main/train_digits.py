"""Trains `vit_digits`, the explainee of the embedded default, on digits drawn afresh at every step.

    python main/train_digits.py

Writes `explainee.safetensors` and `explainee.json` (accuracy on the 397 held-out digits, arguments, versions)
and resumes when killed and repeated.
"""

from pathlib import Path
from runpy import run_path

if not __package__:  # run as a file
    run_path(str(Path(__file__).resolve().parents[1] / "__init__.py"))

import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from ltx.config import CHECKPOINTS
from ltx.datasets.digits import DigitsOnPhotos
from ltx.main.common import cli, progress
from ltx.main.common.options import RunOptions, option
from ltx.main.runs.run_folder import resolved_options, versions
from ltx.models.checkpoints import load_state, save_safetensors, save_state
from ltx.models.explainee import Explainee
from ltx.models.files import replace_file
from ltx.models.registry import EXPLAINEE_FILE, create_model, input_spec


@dataclass(frozen=True, kw_only=True)
class TrainDigitsOptions(RunOptions):
    """`main/train_digits.py`: the explainee `vit_digits`."""

    steps: int = option(4000, "training steps")
    batch_size: int = option(64, "digits per step, each drawn afresh")
    lr: float = option(1e-3, "peak of the one-cycle learning rate")
    label_smoothing: float = option(0.05, "label smoothing")
    seed: int = option(42, "seed of everything random")
    output: Path = option(CHECKPOINTS / "vit_digits", "folder that receives explainee.safetensors", free=True)


log = logging.getLogger(__name__)

SAVE_EVERY = 250


@cli.script(TrainDigitsOptions)
def main(options: TrainDigitsOptions) -> tuple[Path, dict]:
    """Trains, writes the weights in half precision, and returns the held-out accuracy of what was written."""
    from ltx.main.common.devices import pick_device

    torch.manual_seed(options.seed)
    device = pick_device(options.device)
    explainee = Explainee(create_model("vit_digits"), input_spec(create_model("vit_digits")), "vit_digits")
    explainee.to(device).requires_grad_(True)
    minutes = train(explainee, options, device)
    weights = {key: value.half() for key, value in explainee.model.state_dict().items()}
    explainee.model.load_state_dict(weights)
    accuracy = held_out_accuracy(explainee, device)
    record = {
        "held_out_accuracy": accuracy,
        "held_out_digits": len(DigitsOnPhotos("test")),
        "minutes": minutes,
        "options": resolved_options(options),
        "versions": versions(),
    }
    save_safetensors(options.output / EXPLAINEE_FILE, weights, {"name": "vit_digits", "classes": 10})
    replace_file(
        options.output / "explainee.json",
        lambda path: Path(path).write_text(json.dumps(record, indent=1) + "\n"),
    )
    (options.output / "explainee_state.pt").unlink(missing_ok=True)
    file = progress.display_path(options.output / EXPLAINEE_FILE)
    print(f"held-out accuracy {100 * accuracy:.2f}% -> {file}")
    return options.output, {"vit_digits": {"accuracy": 100 * accuracy}}


def train(explainee: Explainee, options: TrainDigitsOptions, device: torch.device) -> float:
    """AdamW with a one-cycle rate; returns the minutes spent, those before a restart included."""
    optimizer = torch.optim.AdamW(explainee.model.parameters(), lr=options.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.lr, options.steps)
    state_path, step, minutes = options.output / "explainee_state.pt", 0, 0.0
    if state_path.is_file():
        state = load_state(state_path)
        explainee.model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        step, minutes = state["step"], state["minutes"]
        log.warning("resuming at step %d", step)
    total = options.steps * options.batch_size
    digits = torch.utils.data.Subset(
        DigitsOnPhotos("train", total, augment=True, draw=1), range(step * options.batch_size, total)
    )
    loader = DataLoader(digits, options.batch_size, num_workers=options.num_workers)
    started = time.monotonic()
    for batch in progress.progress_bar(loader, desc="vit_digits", initial=step, total=options.steps):
        logits = explainee(batch["image"].to(device))
        loss = F.cross_entropy(logits, batch["label"].to(device), label_smoothing=options.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        step += 1
        if step % SAVE_EVERY == 0 or step == options.steps:
            spent = minutes + (time.monotonic() - started) / 60
            state = {"model": explainee.model.state_dict(), "optimizer": optimizer.state_dict()}
            save_state(
                state_path, state | {"schedule": schedule.state_dict(), "step": step, "minutes": spent}
            )
    return minutes + (time.monotonic() - started) / 60


def held_out_accuracy(explainee: Explainee, device: torch.device) -> float:
    """Share of the held-out digits that the explainee gets right."""
    right = 0
    with torch.no_grad():
        for batch in DataLoader(DigitsOnPhotos("test"), 128):
            right += (explainee(batch["image"].to(device)).argmax(1).cpu() == batch["label"]).sum().item()
    return right / len(DigitsOnPhotos("test"))


if __name__ == "__main__":
    main()
