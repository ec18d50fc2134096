"""pLTX pretraining: the schedule, one step by hand, resuming, validation."""

import copy
import csv
import math
import os

import pytest
import torch

from ltx.config import UserError
from ltx.datasets.base import ImageSet
from ltx.main.seg_classification.pretraining import Plan, Trainer
from ltx.models.checkpoints import load_safetensors, load_state
from ltx.models.conditioning import class_rows_of
from ltx.models.losses import Objective


class RandomImages(ImageSet):
    """Random images, the same for the same index; `read` counts what was asked for."""

    def __init__(self, n, size=(32, 32), n_classes=5):
        super().__init__(size)
        self.names = [f"image {i}" for i in range(n)]
        self.labels = [i % n_classes for i in range(n)]
        self.read = []

    def __getitem__(self, index):
        self.read.append(index)
        image = torch.rand(3, *self.image_size, generator=torch.Generator().manual_seed(index))
        return {"image": image, "label": self.labels[index], "index": index}

    def describe(self):
        return {"kind": "random"}


def plan(**changes):
    defaults = {"n_epochs": 3, "batch_size": 4, "lr": 1e-3, "weight_decay": 0.01, "schedule_images": 10}
    return Plan(**(defaults | {"by_target": False, "save_every": 1} | changes))


@pytest.fixture
def make_trainer(make_explainee, make_explainer, tmp_path):
    def make(folder="run", kind="vit", n_train=10, n_val=6, objective=None, **changes):
        images = RandomImages(n_train + n_val)
        return Trainer(
            make_explainer(kind), make_explainee("cnn"), objective or Objective(mask_loss_mul=5.0),
            images, list(range(n_train)), images, list(range(n_train, n_train + n_val)),
            plan(**changes), tmp_path / folder, {"note": "test"},
        )  # fmt: skip

    return make


# The schedule.


def test_rate_is_a_fifth_of_warm_up_then_a_linear_decay_to_zero():
    schedule = plan(n_epochs=10, batch_size=10, schedule_images=100, lr=1.0)  # 100 steps, warm-up 20
    for step in range(101):
        expected = step / 20 if step < 20 else (100 - step) / 80
        assert schedule.rate(step) == pytest.approx(expected)
    assert schedule.rate(20) == 1.0 and schedule.rate(100) == 0 and schedule.rate(10**6) == 0


def test_rate_against_transformers_like_lambda_schedule():
    """The same through `torch.optim.lr_scheduler.LambdaLR`, as Lightning steps it."""
    schedule = plan(n_epochs=2, batch_size=4, schedule_images=40, lr=0.3)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    stepper = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: step / 4 if step < 4 else max(0.0, (20 - step) / 16)
    )
    for step in range(20):
        assert schedule.rate(step) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        stepper.step()


def test_released_sizing_never_leaves_warm_up():
    """50,000 images in the schedule, 1,000 in training: 32 steps an epoch, 30 epochs, a peak near 2e-4."""
    released = plan(n_epochs=30, batch_size=32, lr=2e-3, schedule_images=50_000)
    warm_up = 50_000 // 32 * 30 // 5
    assert warm_up == 9372
    assert released.rate(warm_up) == 2e-3 and released.rate(warm_up - 1) < 2e-3
    assert released.highest_rate(1000) == pytest.approx(2e-3 * (32 * 30 - 1) / warm_up)
    assert released.highest_rate(1000) == pytest.approx(2e-4, rel=0.05)
    assert released.highest_rate(50_000) == pytest.approx(2e-3)


def test_highest_rate_of_an_honest_schedule_is_the_peak():
    assert plan(n_epochs=10, batch_size=10, schedule_images=100, lr=0.5).highest_rate(100) == 0.5


def test_tiny_schedules_do_not_divide_by_zero():
    assert plan(n_epochs=1, batch_size=32, schedule_images=3).rate(0) == 0
    assert plan(n_epochs=1, batch_size=1, schedule_images=1).highest_rate(1) >= 0


# Training.


@pytest.mark.parametrize("kind", ["vit", "cnn"])
@pytest.mark.parametrize("by_target", [True, False])
def test_training_equals_a_plain_loop(make_trainer, kind, by_target):
    """Mean loss over the batch, AdamW, the rate of each step, the seed's order: written out."""
    trainer = make_trainer(kind=kind, n_epochs=2, by_target=by_target)
    before, own, explainee = (*map(copy.deepcopy, [trainer.explainer] * 2), trainer.explainee)
    optimizer = torch.optim.AdamW(own.trainable().values(), lr=1e-3, weight_decay=0.01)
    step, images = 0, trainer.images
    for epoch in range(2):
        order = torch.randperm(10, generator=torch.Generator().manual_seed(42 + epoch)).tolist()
        for start in range(0, 10, 4):
            batch = torch.stack([images[i]["image"] for i in order[start : start + 4]])
            labels = torch.tensor([images.labels[i] for i in order[start : start + 4]])
            classes = labels if by_target else explainee(batch).argmax(1)
            mask = own(batch)
            saliency = torch.nn.functional.interpolate(mask, (32, 32), mode="bilinear")
            loss = torch.nn.functional.cross_entropy(explainee(batch * saliency), classes)
            loss = loss + 5 * torch.nn.functional.binary_cross_entropy_with_logits(
                mask, torch.zeros_like(mask)
            )
            total, warm_up = 4, 1  # 10 // 4 steps in each of 2 epochs
            rate = step / warm_up if step < warm_up else max(0, (total - step) / (total - warm_up))
            optimizer.param_groups[0]["lr"] = 1e-3 * rate
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
    trainer.run()
    probe = torch.stack([images[i]["image"] for i in range(16)])
    torch.testing.assert_close(trainer.explainer(probe), own(probe), rtol=0, atol=1e-5)
    assert (own(probe) - before(probe)).abs().max() > 1e-3


def test_crops_are_trained_on_and_never_validated_on(make_trainer):
    plain, crops = make_trainer("plain", n_epochs=1), make_trainer("crops", n_epochs=1, augment=True)
    assert crops.validate()[0] == plain.validate()[0]
    seen = []
    crops.classes_of = lambda images, labels: seen.append(images) or labels
    crops._train_epoch()
    plain._train_epoch()
    originals = torch.stack([crops.images[i]["image"] for i in range(10)])
    differences = (torch.cat(seen)[:, None] - originals).abs().amax((2, 3, 4))
    assert len(differences) == 10 and differences.min() > 0.1
    ours, theirs = crops.explainer.state_dict(), plain.explainer.state_dict()
    assert any(not torch.equal(ours[name], theirs[name]) for name in ours)


def test_explainee_is_untouched_and_frozen_weights_stay(make_trainer):
    trainer = make_trainer(schedule_images=100)
    before = {k: v.clone() for k, v in trainer.explainee.state_dict().items()}
    start = {k: v.clone() for k, v in trainer.explainer.state_dict().items()}
    trainer.run()
    assert all(torch.equal(v, before[k]) for k, v in trainer.explainee.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in trainer.explainee.parameters())
    now, trainable = trainer.explainer.state_dict(), trainer.explainer.trainable()
    assert all(torch.equal(now[k], start[k]) for k in now if k not in trainable)
    assert not any(torch.equal(now[k], start[k]) for k in trainable)


@pytest.mark.parametrize("seed", [0, 1])
def test_training_lowers_the_loss(make_trainer, seed):
    """The mask loss outweighs the rest, and the head's bias alone lowers it."""
    rows = make_trainer(
        n_epochs=6, lr=3e-3, schedule_images=20, seed=seed, objective=Objective("l1", 50.0)
    ).run()
    for name in ("train_loss", "val_loss"):
        assert rows[-1][name] < 0.8 * rows[0][name], name


@pytest.mark.parametrize("score_class", ["explained", "target", "predicted"])
def test_validation_figures_are_plain_means(make_trainer, score_class):
    trainer = make_trainer(by_target=True, score_class=score_class)
    explainer, explainee, images = trainer.explainer, trainer.explainee, trainer.val_images
    sums = {"loss": 0.0, "mask_area": 0.0, "POS": 0.0}
    for i in trainer.val:
        image, label = images[i]["image"][None], images.labels[i]
        mask = explainer(image)
        saliency = torch.nn.functional.interpolate(mask, (32, 32), mode="bilinear")
        logits = explainee(image * saliency)
        size = torch.log(1 + mask.exp()).mean()
        sums["loss"] += (logits.logsumexp(1)[0] - logits[0, label] + 5 * size).item()
        sums["mask_area"] += mask.mean().item()
        scored = explainee(image).argmax().item() if score_class == "predicted" else label
        order, readings = torch.argsort(-saliency.flatten(), stable=True), []
        for step in range(10):
            perturbed = image.clone().view(3, -1)
            perturbed[:, order[: step * 1024 // 10]] = 0
            readings.append(int(explainee(perturbed.view(1, 3, 32, 32)).argmax().item() == scored))
        sums["POS"] += 10 * (sum(readings) - (readings[0] + readings[9]) / 2)
    found, first = trainer.validate()
    for name, total in sums.items():
        assert found[name] == pytest.approx(total / len(trainer.val), rel=1e-4), name
    assert first["images"].shape == (4, 3, 32, 32) and first["maps"].shape == (4, 32, 32)
    assert torch.equal(first["images"][0], images[trainer.val[0]]["image"])


def test_files_of_a_run(make_trainer):
    trainer = make_trainer()
    rows = trainer.run()
    with open(trainer.folder / "epochs.csv", newline="") as file:
        written = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in written] == [0, 1, 2]
    for row, line in zip(rows, written, strict=True):
        assert float(line["val_POS"]) == pytest.approx(row["val_POS"], abs=1e-5)
    weights, metadata = load_safetensors(trainer.folder / "last.safetensors")
    assert all(torch.equal(weights[k], v) for k, v in trainer.explainer.state_dict().items())
    assert metadata["global_step"] == 9 and metadata["epoch"] == 2 and metadata["note"] == "test"
    assert load_state(trainer.folder / "last.pt")["global_step"] == 9
    best = min(rows, key=lambda row: row["val_POS"])  # the earliest of equals
    assert load_safetensors(trainer.folder / "best.safetensors")[1]["epoch"] == best["epoch"]


def test_half_checkpoints_are_half(make_trainer):
    trainer = make_trainer(n_epochs=1, half=True)
    trainer.run()
    weights, _ = load_safetensors(trainer.folder / "best.safetensors")
    assert {value.dtype for value in weights.values() if value.is_floating_point()} == {torch.float16}


def test_no_checkpoints_when_not_asked_for(make_trainer):
    trainer = make_trainer(n_epochs=1, checkpoints=False)
    trainer.run()
    assert not list(trainer.folder.glob("*.safetensors")) and (trainer.folder / "epochs.csv").is_file()


def test_a_loss_that_is_not_finite_stops_with_one_line(make_trainer):
    trainer = make_trainer(objective=Objective(mask_loss_mul=math.inf))
    with pytest.raises(UserError, match=r"not finite at step 0.*--lr"):
        trainer.run()


# Resuming.


class Killed(BaseException):
    """Stands for a kill: nothing in the program catches it."""


def killed_after(trainer, n_batches):
    """Runs a trainer that dies before its (n_batches + 1)-th batch is trained on."""
    train, done = trainer._train_step, []

    def dying(*arguments):
        if len(done) == n_batches:
            raise Killed
        done.append(1)
        return train(*arguments)

    trainer._train_step = dying
    with pytest.raises(Killed):
        trainer.run()


def without_seconds(rows):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@pytest.mark.parametrize("augment", [False, True], ids=["as they are", "crops"])
@pytest.mark.parametrize("kills, save_every", [([1], 1), ([3], 2), ([2, 2], 1), ([5], 2)], ids=str)
def test_killed_and_repeated_gives_the_same_weights(make_trainer, kills, save_every, augment):
    whole = make_trainer("whole", n_epochs=2, augment=augment)
    rows = whole.run()
    for n_batches in kills:
        killed_after(make_trainer("killed", n_epochs=2, save_every=save_every, augment=augment), n_batches)
    again = make_trainer("killed", n_epochs=2, save_every=save_every, augment=augment)
    resumed_rows = again.run()
    for name, value in whole.explainer.state_dict().items():
        assert torch.equal(again.explainer.state_dict()[name], value), name
    for row, other in zip(without_seconds(rows), without_seconds(resumed_rows), strict=True):
        assert row == pytest.approx(other, rel=1e-9)
    for name in ("best", "last"):
        first, other = (load_safetensors(t.folder / f"{name}.safetensors") for t in (whole, again))
        assert first[1] == other[1] and all(torch.equal(first[0][k], other[0][k]) for k in first[0])


@pytest.mark.parametrize("file", ["last.pt", "best.safetensors", "epochs.csv", "state.pt"])
def test_killed_while_an_epoch_is_written(make_trainer, monkeypatch, file):
    """Whatever file the kill hits, the repeated run ends as an undisturbed one, and `best` stays whole."""
    whole = make_trainer("whole", n_epochs=2)
    whole.run()
    replace, seen = os.replace, []

    def dying(source, target):
        seen.append(target)
        if target.name == file and sum(path.name == file for path in seen) == 2:
            raise Killed
        replace(source, target)

    monkeypatch.setattr(os, "replace", dying)
    try:
        make_trainer("killed", n_epochs=2, save_every=100).run()
    except Killed:
        load_safetensors(whole.folder.parent / "killed" / "best.safetensors")
    else:
        assert file == "best.safetensors"  # it is written a second time only if a later epoch is better
    monkeypatch.setattr(os, "replace", replace)
    again = make_trainer("killed", n_epochs=2, save_every=100)
    again.run()
    for name in ("best", "last"):
        first, other = (load_safetensors(t.folder / f"{name}.safetensors") for t in (whole, again))
        assert all(torch.equal(first[0][k], other[0][k]) for k in first[0])


def test_a_finished_run_is_not_trained_again(make_trainer):
    rows = make_trainer().run()
    again = make_trainer()
    assert again.run() == rows and again.images.read == []


# Class-conditional explainers.


class TwoLabels(RandomImages):
    """Every other image has a second class."""

    def __getitem__(self, index):
        return super().__getitem__(index) | {"second_label": (index + 2) % 5 if index % 2 else -1}


@pytest.mark.parametrize("by_target", [True, False])
def test_class_conditional_training_asks_and_resumes_like_any_other(
    make_trainer, make_explainer, make_explainee, by_target
):
    def trainer(folder, **changes):
        made = make_trainer(folder, by_target=by_target, **changes)
        made.explainer = make_explainer("vit", class_rows=class_rows_of(make_explainee("cnn")))
        made.images = made.val_images = TwoLabels(16)
        made.__post_init__()
        return made

    whole = trainer("whole", n_epochs=2)
    rows = whole.run()
    assert all(math.isfinite(value) for row in rows for value in row.values())
    trainer("parts", n_epochs=2)._train_epoch()  # leaves its state behind after each step but the last
    again = trainer("parts", n_epochs=2)
    again.run()
    expected, found = whole.explainer.state_dict(), again.explainer.state_dict()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    start = trainer("start").explainer.state_dict()
    assert not torch.equal(start["condition.film.weight"], expected["condition.film.weight"])
    metadata = load_safetensors(whole.folder / "last.safetensors")[1]
    assert metadata["class_conditional"] == "classifier"
