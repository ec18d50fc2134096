"""NaN and infinities end the image that they come from, are named, and touch no other image."""

import csv
import json

import pytest
import torch

from ltx.config import UserError
from ltx.main.runs.mask_files import MaskUnit, read_unit, unit_files
from ltx.main.seg_classification import ltx_run, run_seg_cls_opt
from ltx.main.seg_classification.finetuning import Settings, finetune
from ltx.models.losses import Objective

N_STEPS, MARKED, VARIANTS = 5, 1, ("pltx", "last", "best_loss", "best_pos")


class Breaks:
    """An explainee whose logits for the marked image (its first pixel is black) break after some steps.

    What it adds is part of the graph, so the marked image's gradients, weights and moments break too.
    """

    def __init__(self, explainee, after: int, value: float):
        self.explainee, self.after, self.value, self.seen = explainee, after, value, 0

    def __call__(self, images):
        logits = self.explainee(images)
        marked = (images[:, :, 0, 0] == 0).all(1)
        if torch.is_grad_enabled() and marked.any():
            self.seen += 1
            if self.seen > self.after:
                factor = torch.where(marked, self.value, 1.0)[:, None]
                logits = logits * factor
        return logits


@pytest.fixture
def case(make_explainee, make_explainer):
    def make(kind):
        size = (64, 64) if kind == "cnn" else (32, 32)
        explainee = make_explainee("cnn", size=size)
        images = torch.rand(6, 3, *size) * 0.9 + 0.1
        images[MARKED, :, 0, 0] = 0
        return make_explainer(kind, size=size), explainee, images, explainee(images).argmax(1)

    return make


def run(case, explainee=None, n_steps=N_STEPS, slots=2):
    explainer, known, images, classes = case
    chosen = Settings(n_steps=n_steps, lr=3e-3, slots=slots)
    return finetune(explainer, explainee or known, images, classes, classes, Objective(), chosen)


@pytest.mark.parametrize("kind", ["vit", "cnn"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("slots", [2, 6])
def test_one_image_ends_and_the_others_are_the_same(case, kind, value, slots):
    """With two slots, the next image takes the slot whose weights and moments were NaN."""
    made = case(kind)
    masks, figures = run(made, Breaks(made[1], 3, value), slots=slots)
    whole, usual = run(made, slots=slots)
    others = [i for i in range(6) if i != MARKED]
    for name in VARIANTS:
        assert torch.equal(masks[name][others], whole[name][others]), name
    assert torch.equal(figures["loss"][others], usual["loss"][others])
    assert figures["not_finite_from"].tolist() == [-1, 3, -1, -1, -1, -1]
    assert figures["steps"].tolist() == [5, 3, 5, 5, 5, 5]
    short, _ = run(made, n_steps=3, slots=slots)  # what it would have given had it had three steps
    for name in VARIANTS:
        torch.testing.assert_close(masks[name][MARKED], short[name][MARKED], rtol=0, atol=1e-6)
    assert figures["loss"][MARKED].isfinite().tolist() == [True] * 3 + [False] * 2


def test_an_image_that_is_broken_from_the_start_has_no_mask(case):
    made = case("vit")
    masks, figures = run(made, Breaks(made[1], 0, float("nan")))
    assert figures["not_finite_from"][MARKED] == 0
    for name in VARIANTS:
        assert masks[name][MARKED].isnan().all() and masks[name][[0, 2, 3, 4, 5]].isfinite().all()


@pytest.mark.usefixtures("no_drawing")
def test_a_run_names_and_counts_them(run_script, tiny_pair, tmp_path, monkeypatch):
    """Image 1 breaks at step 2 and keeps its masks; image 2 from the start, and is left out."""

    def broken(*arguments):
        masks, figures = finetune(*arguments)
        figures["not_finite_from"][1] = 2
        for values in masks.values():
            values[2] = torch.nan
        return masks, figures

    monkeypatch.setattr(ltx_run, "finetune", broken)
    made = run_script(
        run_seg_cls_opt, *tiny_pair.flags, "--max-images", 4, "--default-root-dir", tmp_path, "--run-name",
        "run", "--n_epochs_to_optimize_stage_b", 3, "--metrics", "POS,ADP",
    )  # fmt: skip
    assert made.code == 0, made.err
    assert (made.closing["skipped"], made.closing["not_finite"]) == (1, 1)
    summary = json.loads(next((tmp_path / "run" / "results").glob("*/summary.json")).read_text())
    assert (summary["skipped"], summary["not_finite"]) == (1, 1)
    assert summary["rows"]["last"]["POS"]["n"] == 3
    unit = read_unit(unit_files(tmp_path / "run")[0])
    assert unit.index.tolist() == [0, 1, 3] and all(len(v) == 3 for v in unit.arrays.values())
    found = {}
    for name in ("skipped", "not_finite"):
        with open(tmp_path / "run" / f"{name}.csv", newline="") as file:
            found[name] = [(row["img_name"], row["reason"]) for row in csv.DictReader(file)]
    assert [name for name, _ in found["skipped"]] == ["2"] and "not finite" in found["skipped"][0][1]
    assert [name for name, _ in found["not_finite"]] == ["1"] and "from step 2 on" in found["not_finite"][0][
        1
    ]


def test_rows_are_left_out_together():
    masks = torch.rand(3, 2, 2).numpy()
    masks[1, 0, 0] = float("inf")
    unit = MaskUnit(torch.tensor([4, 5, 6]).numpy(), torch.arange(3).numpy(), {"a": masks}, {}, {"x": masks})
    assert list(unit.not_finite()) == [1]
    left = unit.without({5: unit.not_finite()[1]})
    assert left.index.tolist() == [4, 6] and left.classes.tolist() == [0, 2]
    assert list(left.skipped) == [5] and len(left.arrays["x"]) == 2 and not left.not_finite()


def test_weights_that_broke_in_the_last_step_are_not_saved(tmp_path, make_explainee, make_explainer):
    """The loss of a step is finite, its gradient is not: without a look at the weights they would be kept."""
    from ltx.datasets.digits import DigitsOnPhotos
    from ltx.main.seg_classification.pretraining import Plan, Trainer

    explainer = make_explainer()
    images = DigitsOnPhotos("tune", 8, (32, 32))
    plan = Plan(1, 4, 1e-3, 0.01, 4, False)
    trainer = Trainer(
        explainer,
        make_explainee(num_classes=10),
        Objective(),
        images,
        range(4),
        images,
        range(4, 8),
        plan,
        tmp_path,
    )
    next(iter(explainer.trainable().values())).register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(UserError, match="not finite at step 1"):
        trainer.run()
    assert not list(tmp_path.glob("best*")) and not (tmp_path / "state.pt").exists()
