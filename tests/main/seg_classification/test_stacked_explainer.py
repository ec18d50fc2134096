"""Stacked copies against separate explainers, each with an AdamW of its own."""

import copy

import pytest
import timm
import torch

from ltx.main.seg_classification.stacked_explainer import StackedExplainer
from ltx.models.explainer import Explainer
from ltx.models.registry import InputSpec

TRANSFORMERS = {
    "vit": lambda: timm.create_model("test_vit", img_size=64),
    "deit_distilled": lambda: timm.create_model(
        "deit_tiny_distilled_patch16_224", img_size=64, embed_dim=16, depth=2, num_heads=2
    ),
    "registers": lambda: timm.create_model(
        "vit_small_patch14_reg4_dinov2", img_size=64, patch_size=16, embed_dim=16, depth=2, num_heads=2
    ),
    "swin": lambda: timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=64, window_size=4, embed_dim=8, depths=(2, 2),
        num_heads=(2, 2),
    ),
}  # fmt: skip


def separate_steps(explainer, images, n_steps, loss_of, **adamw):
    """Masks (steps, B, 1, h, w) of each image's own copy before each of its own AdamW steps."""
    masks = []
    for image in images:
        own = copy.deepcopy(explainer)
        optimizer = torch.optim.AdamW(own.trainable().values(), **adamw)
        steps = []
        for _ in range(n_steps):
            mask = own(image[None])
            steps.append(mask.detach())
            optimizer.zero_grad()
            loss_of(mask).backward()
            optimizer.step()
        masks.append(torch.cat(steps))
    return torch.stack(masks, 1)


def stacked_steps(stack, images, n_steps, loss_of):
    slots, masks = list(range(len(images))), []
    for _ in range(n_steps):
        made = stack.token_masks(images, slots)
        masks.append(made.detach())
        stack.update(torch.stack([loss_of(mask[None]) for mask in made]), slots)
    return torch.stack(masks)


def loss_of(mask):
    """Pulls the first token up and everything else down."""
    return mask.mean() - 3 * mask.flatten()[0]


@pytest.mark.parametrize(
    "kind, use_vmap", [("vit", True), ("vit", False), ("cnn", False), ("vit", None), ("cnn", None)]
)
def test_copies_train_as_separate_explainers_do(make_explainer, kind, use_vmap):
    explainer, images = make_explainer(kind, size=(64, 64)), torch.rand(3, 3, 64, 64)
    before = {name: value.clone() for name, value in explainer.state_dict().items()}
    stack = StackedExplainer(explainer, 3, lr=1e-2, weight_decay=0.1, use_vmap=use_vmap)
    found = stacked_steps(stack, images, 6, loss_of)
    expected = separate_steps(explainer, images, 6, loss_of, lr=1e-2, weight_decay=0.1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (found[-1] - found[0]).abs().max() > 0.01  # they did train
    assert all(torch.equal(value, before[name]) for name, value in explainer.state_dict().items())
    assert all(parameter.grad is None for parameter in explainer.parameters())


@pytest.mark.parametrize("kind", TRANSFORMERS)
@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_every_kind_of_transformer_runs_stacked(kind, size):
    """Also where the images are not of the explainer's own size."""
    torch.manual_seed(0)
    explainer = Explainer(TRANSFORMERS[kind](), InputSpec((64, 64), (0.5,) * 3, (0.5,) * 3), kind)
    images = torch.rand(2, 3, *size)
    found = stacked_steps(StackedExplainer(explainer, 2, lr=1e-3), images, 3, loss_of)
    expected = separate_steps(explainer, images, 3, loss_of, lr=1e-3, weight_decay=0.01)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_frozen_weights_are_shared_and_trainable_ones_stacked(make_explainer):
    explainer = make_explainer("vit", n_first_layers_to_freeze=1)
    stack = StackedExplainer(explainer, 4, lr=1e-3)
    expected = {name: (4, *value.shape) for name, value in explainer.trainable().items()}
    assert {name: tuple(value.shape) for name, value in stack.weights.items()} == expected
    assert stack.shared["backbone.blocks.0.attn.qkv.weight"].data_ptr() == (
        explainer.backbone.blocks[0].attn.qkv.weight.data_ptr()
    )


def test_a_reset_slot_starts_anew_and_leaves_the_others(make_explainer):
    explainer, images = make_explainer(), torch.rand(2, 3, 32, 32)
    stack = StackedExplainer(explainer, 2, lr=1e-2)
    fresh = stacked_steps(stack, images, 4, loss_of)
    stack.reset(1)
    again = stacked_steps(stack, images, 4, loss_of)
    torch.testing.assert_close(again[:, 1], fresh[:, 1], rtol=0, atol=1e-6)
    expected = separate_steps(explainer, images[:1], 8, loss_of, lr=1e-2, weight_decay=0.01)
    torch.testing.assert_close(torch.cat([fresh, again])[:, 0], expected[:, 0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["vit", "cnn"])
def test_some_slots_in_any_order(make_explainer, kind):
    explainer, images = make_explainer(kind, size=(64, 64)), torch.rand(4, 3, 64, 64)
    stack = StackedExplainer(explainer, 4, lr=1e-2)
    together = stacked_steps(StackedExplainer(explainer, 4, lr=1e-2), images, 2, loss_of)
    for step in range(2):
        for slots in ([2, 0], [3], [1]):
            made = stack.token_masks(images[slots], slots)
            torch.testing.assert_close(made, together[step][slots], rtol=0, atol=1e-5)
            stack.update(torch.stack([loss_of(mask[None]) for mask in made]), slots)
    assert stack.updates == [2, 2, 2, 2]


def test_schedule_and_stored_moments_continue_an_optimiser(make_explainer):
    """`--finetune-lr released`: a rate for each update, on top of a stored AdamW state."""
    explainer, images = make_explainer(), torch.rand(2, 3, 32, 32)
    names = list(explainer.trainable())
    stored = torch.optim.AdamW(copy.deepcopy(explainer).trainable().values(), lr=1e-3, weight_decay=0.01)
    parameters = stored.param_groups[0]["params"]
    for _ in range(5):
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        stored.step()
    state = [stored.state[parameter] for parameter in parameters]
    moments = {
        key: {name: entry[key].clone() for name, entry in zip(names, state, strict=True)}
        for key in ("exp_avg", "exp_avg_sq")
    } | {"step": 5.0}
    rates = [4e-3, 1e-3, 2e-3, 3e-3]
    expected = []
    for image in images:
        own = copy.deepcopy(explainer)
        optimizer = torch.optim.AdamW(own.trainable().values(), lr=1.0, weight_decay=0.01)
        optimizer.load_state_dict(copy.deepcopy(stored.state_dict()))
        for rate in rates:
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            loss_of(own(image[None])).backward()
            optimizer.step()
        expected.append(own(image[None]).detach())
    stack = StackedExplainer(explainer, 2, lr=0.0, schedule=rates.__getitem__, moments=moments)
    for _ in range(2):  # the second time after a reset
        stacked_steps(stack, images, 4, loss_of)
        torch.testing.assert_close(
            stack.token_masks(images, [0, 1]).detach(), torch.cat(expected), rtol=0, atol=1e-5
        )
        stack.reset(0)
        stack.reset(1)


def test_slots_may_be_at_different_updates_of_a_schedule(make_explainer):
    explainer, images = make_explainer(), torch.rand(2, 3, 32, 32)
    rates = [1e-2, 1e-3, 5e-3]
    stack = StackedExplainer(explainer, 2, lr=0.0, schedule=rates.__getitem__)
    for slots in ([0], [0, 1], [0, 1], [1]):
        made = stack.token_masks(images[slots], slots)
        stack.update(torch.stack([loss_of(mask[None]) for mask in made]), slots)
    alone = StackedExplainer(explainer, 2, lr=0.0, schedule=rates.__getitem__)
    stacked_steps(alone, images, 3, loss_of)
    found, expected = (stacked.token_masks(images, [0, 1]).detach() for stacked in (stack, alone))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["vit", "cnn"])
def test_class_conditional_slots_are_asked_each_for_its_own_class(make_explainer, kind):
    """vmap and the loop, against separate copies, each with its own class and AdamW."""
    explainer = make_explainer(kind, class_rows=torch.randn(5, 16))
    with torch.no_grad():
        for value in explainer.condition.parameters():
            value.copy_(torch.randn_like(value) * 0.2)
    images, classes = torch.rand(3, 3, 32, 32), torch.tensor([4, 0, 2])

    def asked(own, image, c):
        return own(image[None], c[None])

    expected = []
    for image, c in zip(images, classes, strict=True):
        own = copy.deepcopy(explainer)
        optimizer = torch.optim.AdamW(own.trainable().values(), lr=1e-3, weight_decay=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            loss_of(asked(own, image, c)).backward()
            optimizer.step()
        expected.append(asked(own, image, c).detach()[0])
    for use_vmap in (True, False) if kind == "vit" else (False,):
        stack = StackedExplainer(explainer, 3, lr=1e-3, use_vmap=use_vmap)
        for _ in range(3):
            made = stack.token_masks(images, [0, 1, 2], classes)
            stack.update(torch.stack([loss_of(mask[None]) for mask in made]), [0, 1, 2])
        found = stack.token_masks(images, [0, 1, 2], classes).detach()
        torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-5)
        some = stack.token_masks(images[[2, 0]], [2, 0], classes[[2, 0]]).detach()
        torch.testing.assert_close(some, torch.stack(expected)[[2, 0]], rtol=0, atol=1e-5)
