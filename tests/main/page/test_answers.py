"""What the page answers, without the page."""

import json
import threading
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ltx.config import UserError
from ltx.datasets.base import to_tensor
from ltx.main.baselines import methods as baselines
from ltx.main.baselines.base import Baseline
from ltx.main.interface.explain import explain_as
from ltx.main.page import answers


@pytest.fixture
def ask(loaded, picture):
    """`ask(target, steps, seconds, stop)`: the answers to a question about the picture."""

    def go(target=3, steps=4, seconds=60.0, stop=None):
        return answers.refine(loaded, picture, target, steps, seconds, stop or threading.Event())

    return go


def test_top_classes(loaded, picture):
    probability = loaded.explainee(to_tensor(picture, (32, 32))[None]).softmax(1)[0]
    top = answers.top_classes(loaded, picture)
    assert [index for index, _, _ in top] == probability.topk(5).indices.tolist()
    assert [name for _, name, _ in top] == [f"class {index}" for index, _, _ in top]
    assert [p for _, _, p in top] == pytest.approx(probability.topk(5).values.tolist())


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_the_last_answer_is_that_of_the_interface(steps, ask, loaded, picture):
    made = list(ask(steps=steps))
    image, method = to_tensor(picture, (32, 32))[None], loaded.method
    wanted = explain_as(method.explainer, loaded.explainee, image, 3, replace(method.how, steps=steps))
    last = made[-1]
    size = (40, 60)
    maps = torch.nn.functional.interpolate(
        wanted.token_masks[:, None], size, mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(last.saliency, maps[0, 0].clamp(0, 1), rtol=0, atol=1e-5)
    assert last.scores == pytest.approx(
        {name: value.item() for name, value in wanted.scores.items()}, abs=1e-5
    )
    assert last.step == max(steps - 1, 0)
    assert all(not answer.scores and answer.step < steps for answer in made[:-1])
    assert last.overlay.size == last.kept.size == (60, 40)


def test_each_mask_is_shown_while_it_is_refined(ask, loaded, monkeypatch):
    """A reader that keeps up sees every step; the masks differ."""
    read = threading.Semaphore(0)
    call = answers._Watched.__call__

    def in_turn(self, *arguments):
        losses = call(self, *arguments)
        read.acquire()
        return losses

    monkeypatch.setattr(answers._Watched, "__call__", in_turn)
    steps = []
    for answer in ask():
        steps.append(answer)
        read.release()
    assert [answer.step for answer in steps] == [0, 1, 2, 3, 3]
    assert not torch.equal(steps[0].saliency, steps[3].saliency)


def test_work_ends_with_its_reader(ask):
    answer = ask(steps=10_000)
    next(answer)
    before = threading.active_count()
    answer.close()
    assert threading.active_count() == before - 1


def test_work_ends_when_told(ask):
    stop = threading.Event()
    answer = ask(steps=10_000, stop=stop)
    next(answer)
    stop.set()
    assert not any(one.scores for one in answer)


def test_work_ends_in_time(ask):
    with pytest.raises(UserError, match=r"stopped after 0\.2 seconds; take fewer steps"):
        list(ask(steps=10_000, seconds=0.2))


def test_a_class_that_is_none(ask):
    with pytest.raises(UserError, match="target 10 is outside the classes"):
        list(ask(target=10))


def test_questions_at_a_time_do_not_disturb_each_other(ask):
    alone = {target: list(ask(target))[-1] for target in (1, 2, 3)}
    together = {}
    threads = [threading.Thread(target=lambda t=t: together.update({t: list(ask(t))[-1]})) for t in alone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for target, answer in alone.items():
        torch.testing.assert_close(together[target].saliency, answer.saliency, rtol=0, atol=1e-5)


def test_methods_that_need_no_package_come_first(loaded):
    there = answers.methods_for(loaded.explainee)
    optional = [baselines.BASELINES[name].package is not None for name in there]
    assert optional == sorted(optional) and {"full_grad", "ablation_cam", "input_gradient"} <= set(there)
    assert not {"random", "import", "rise"} & set(there)
    assert len(answers.usual_methods(there)) == 3


def test_other_methods_maps(loaded, picture, monkeypatch):
    centre = torch.zeros(1, 32, 32)
    centre[:, 8:24, 8:24] = -5.0
    seen = []

    def compute(explainee, batch, options):
        seen.append((explainee is loaded.explainee, batch.classes.tolist(), tuple(batch.images.shape)))
        return centre

    monkeypatch.setitem(baselines.BASELINES, "centre", Baseline(compute, "a test"))
    full_grad, made = answers.compare(loaded, picture, 2, ["full_grad", "centre"])
    assert full_grad.size == made.size == (60, 40) and seen == [(False, [2], (1, 3, 32, 32))]
    assert made.getpixel((1, 1)) != made.getpixel((30, 20))
    with pytest.raises(UserError, match="there is no method 'none'"):
        answers.compare(loaded, picture, 2, ["none"])
    with pytest.raises(UserError, match="there is no class 10"):
        answers.compare(loaded, picture, 10, ["full_grad"])


def test_what_is_downloaded(ask, tmp_path):
    answer = list(ask())[-1]
    path = answers.pack(answer, "../Größe, 1", tmp_path / "new")
    assert path.parent == tmp_path / "new" and path.name == "ltx_Gr_e_1.zip"
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == ["kept.png", "overlay.png", "saliency.npy", "scores.json"]
        with archive.open("saliency.npy") as file:
            np.testing.assert_array_equal(np.load(file), answer.saliency.numpy())
        with archive.open("overlay.png") as file:
            assert Image.open(file).size == (60, 40)
        assert json.loads(archive.read("scores.json"))["probability"] == answer.scores["probability"]


def test_a_mask_that_fails_says_so():
    scores = {"probability": 0.9, "masked_probability": 0.1, "complement_probability": 0.8, "mask_area": 0.05}
    answer = answers.Answer(torch.zeros(3, 2, 2), torch.zeros(2, 2), 0, scores)
    said = answer.text("dog")
    assert said == "dog: 90.0%. Kept 5.0% of the picture: alone it gives 10.0%, without it 80.0%."
    assert replace(answer, warnings=["the mask is empty"]).text("dog") == f"{said} Failed: the mask is empty."
