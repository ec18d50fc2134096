"""Explainers that are shared: several threads at once, and exceptions half-way."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from ltx.main.api import Explainer, explain
from ltx.main.seg_classification.stacked_explainer import StackedExplainer
from ltx.models.sharing import shared_copy


def state(module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(module, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("kind", ["vit", "cnn", "conditional"])
@pytest.mark.parametrize("steps", [0, 4])
def test_threads_that_share_an_explainer_get_what_they_get_alone(kind, steps, make_explainee, make_explainer):
    explainee, images = make_explainee(), torch.rand(2, 3, 32, 32)
    if kind == "conditional":
        explainer = Explainer.for_explainee(explainee.name, explainee, class_conditional=True)
        torch.nn.init.normal_(explainer.condition.enter.weight)
        torch.nn.init.normal_(explainer.condition.film.weight)
    else:
        explainer = make_explainer(kind, size=(64, 64))
    before, parameters = state(explainer), dict(explainer.named_parameters())

    def masks(target):
        return explain(explainer, explainee, images, target=target, steps=steps, lr=1e-2).token_masks

    alone = [masks(target) for target in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = [list(pool.map(masks, range(4))) for _ in range(2)]
    for some in together:
        assert all(torch.equal(a, b) for a, b in zip(alone, some, strict=True))
    assert same(explainer, before)
    assert all(value is parameters[name] for name, value in explainer.named_parameters())


def test_an_exception_leaves_the_explainer_as_it_was(make_explainee, make_explainer):
    explainer, explainee = make_explainer(), make_explainee()
    before, parameters = state(explainer), dict(explainer.named_parameters())
    stack = StackedExplainer(explainer, 2, lr=1e-2)

    def fail(module, inputs, output):
        raise RuntimeError("stop")

    stack.explainer.head.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="stop"):
        stack.token_masks(torch.rand(2, 3, 32, 32), [0, 1])
    assert same(explainer, before) and not explainer.head._forward_hooks
    assert all(value is parameters[name] for name, value in explainer.named_parameters())
    assert explain(explainer, explainee, torch.rand(1, 3, 32, 32), steps=2).token_masks.isfinite().all()


def test_a_shared_copy_holds_the_same_memory_and_another_structure(make_explainer):
    explainer = make_explainer()
    twin = shared_copy(explainer)
    own, others = dict(explainer.named_parameters()), dict(twin.named_parameters())
    assert own.keys() == others.keys()
    assert all(value.data_ptr() == others[name].data_ptr() for name, value in own.items())
    assert all(value.requires_grad == others[name].requires_grad for name, value in own.items())
    assert not any(value.requires_grad for value in shared_copy(explainer, frozen=True).parameters())
    twin.head.register_forward_hook(lambda *_: None)
    assert not explainer.head._forward_hooks
