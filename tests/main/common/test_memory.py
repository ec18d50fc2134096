"""Memory of images side by side, what is free, and backing off."""

import gc

import pytest
import torch

from ltx.config import UserError
from ltx.main.common import memory
from ltx.main.common.memory import AUTO, SideBySide, SlotMemory, free_memory, is_out_of_memory, measure_slot
from ltx.main.seg_classification import ltx_run, run_seg_cls_opt
from ltx.models.losses import Objective

CPU = torch.device("cpu")
SLOT = SlotMemory(weights=1000, activations=6000, shared=5000)


@pytest.mark.parametrize("kind", ["vit", "cnn"])
def test_weights_are_counted_and_activations_grow_with_the_explainer(make_explainer, make_explainee, kind):
    explainer, explainee = make_explainer(kind), make_explainee(kind)
    found = measure_slot(explainer, explainee, Objective())
    assert found.weights == 4 * sum(value.numel() for value in explainer.trainable().values())
    assert found.slot == 4 * found.weights + found.activations
    assert found.activations > 3 * 32 * 32 * 4  # the masked image alone is as large
    inverse = measure_slot(explainer, explainee, Objective(is_ce_neg=True))
    assert inverse.activations > found.activations  # a second pass through the explainee
    assert all(value.grad is None for value in explainer.parameters())


def test_measuring_keeps_nothing(make_explainer, make_explainee):
    """A softmax that holds its own output is a cycle that Python's collector does not see."""
    explainer, explainee = make_explainer("vit"), make_explainee("vit")
    measure_slot(explainer, explainee, Objective())  # what is made once is there

    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(value), torch.Tensor) for value in gc.get_objects())

    before = tensors()
    measure_slot(explainer, explainee, Objective(order_loss_mul=1.0))
    assert tensors() == before


def test_activations_against_what_the_graph_holds():
    """One linear layer keeps its input; nothing that is a weight counts."""

    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.input_size = torch.nn.Linear(64, 16), (8, 8)
            self.register_buffer("mean", torch.zeros(1))

        def trainable(self):
            return dict(self.named_parameters())

        def forward(self, images):
            return self.layer(images[:, 0].flatten(1))

    own = Own()
    found = measure_slot(own, own, lambda explainee, image, masks, target: {"loss": masks.square().sum()})
    assert found.weights == 4 * (64 * 16 + 16)
    # The input's own storage (3 channels of 8 x 8), and the masks that the square keeps.
    assert found.activations == 4 * (3 * 64 + 16)


def test_what_fits_leaves_a_margin():
    assert SLOT.slot == 10_000
    assert SLOT.fits(0) == 0
    assert SLOT.fits(100_000) == 7  # (0.8 * 100,000 - 5,000) / 10,000


@pytest.mark.parametrize("free, expected", [(0, 1), (100_000, 7), (10**9, 32)])
def test_auto_takes_what_fits_up_to_a_limit(free, expected):
    assert SideBySide(AUTO, SLOT, CPU, free=free).n == expected


@pytest.mark.parametrize("asked", [AUTO, 16])
def test_never_more_than_there_are_images(asked):
    assert SideBySide(asked, SLOT, CPU, images=2, free=10**9).n == 2
    assert SideBySide(asked, SLOT, CPU, images=0, free=10**9).n == 1


def test_the_bytes_are_printed(capsys):
    SideBySide(4, SLOT, CPU, free=10**6)
    line = capsys.readouterr().out
    assert "weights 1 kB" in line and "two moments 2 kB" in line and "activations 6 kB" in line
    assert "taking 4 at once" in line


def test_a_given_number_that_does_not_fit_is_lowered_with_a_warning(caplog):
    assert SideBySide(40, SLOT, CPU, free=100_000).n == 7
    assert "40 images side by side need about 405 kB and 100 kB are free; taking 7" in caplog.text
    caplog.clear()
    assert SideBySide(40, SLOT, CPU, images=5, free=100_000).n == 5 and not caplog.text


@pytest.mark.parametrize("asked", [AUTO, 32])
def test_backs_off_by_halves(caplog, asked):
    tried = []

    def work(n):
        tried.append(n)
        if n > 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")
        return n

    side_by_side = SideBySide(asked, SLOT, CPU, free=10**9)
    assert side_by_side.run(work) == 2 and tried == [32, 16, 8, 4, 2]
    assert side_by_side.run(work) == 2  # remembered
    assert "going on with 16" in caplog.text


def test_memory_that_runs_out_with_one_image():
    def work(n):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(UserError, match="out of memory with a single image"):
        SideBySide(8, SLOT, CPU, free=10**9).run(work)


def test_an_allocation_that_fails_is_known_as_such():
    for impossible in (lambda: torch.empty(2**55), lambda: bytearray(2**55)):
        with pytest.raises((RuntimeError, MemoryError)) as error:
            impossible()
        assert is_out_of_memory(error.value)


def test_other_errors_pass():
    assert is_out_of_memory(MemoryError()) and not is_out_of_memory(RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        SideBySide(AUTO, SLOT, CPU, free=10**9).run(
            lambda n: (_ for _ in ()).throw(RuntimeError("shapes differ"))
        )


def test_free_memory_of_this_machine_is_sane():
    assert 10**7 < free_memory(CPU) < 2**62


def test_limits_of_a_control_group_stand_at_any_level(tmp_path):
    own = tmp_path / "cgroup"
    own.write_text("0::/job/step\n")
    step = tmp_path / "root" / "job" / "step"
    step.mkdir(parents=True)
    (step / "memory.max").write_text("max\n")
    (step / "memory.current").write_text("10\n")
    (step / "memory.stat").write_text("")
    (step.parent / "memory.max").write_text("1000\n")
    (step.parent / "memory.current").write_text("700\n")
    (step.parent / "memory.stat").write_text("anon 5\ninactive_file 200\n")
    assert memory._left_of_groups(tmp_path / "root", own) == 1000 - 700 + 200
    assert memory._left_of_groups(tmp_path / "elsewhere", own) == 2**62
    assert memory._left_of_groups(tmp_path / "root", tmp_path / "none") == 2**62


FLAGS = ["--max-images", "3", "--n_epochs_to_optimize_stage_b", "2", "--evaluate", "False"]


def test_a_run_backs_off_and_makes_the_same_masks(tiny_pair, run_script, tmp_path, monkeypatch, caplog):
    from ltx.main.runs.mask_files import read_unit

    place = ["--default-root-dir", str(tmp_path)]
    done = run_script(run_seg_cls_opt, *tiny_pair.flags, *FLAGS, *place, "--run-name", "plain")
    assert done.code == 0, done.err
    assert "memory:" in done.out
    finetune = ltx_run.finetune

    def short_of_memory(*arguments):
        result = finetune(*arguments)
        if arguments[6].slots > 2:
            raise MemoryError
        return result

    monkeypatch.setattr(ltx_run, "finetune", short_of_memory)
    auto = [*tiny_pair.flags, *FLAGS, *place, "--run-name", "auto"]
    done = run_script(run_seg_cls_opt, *auto)
    assert done.code == 0, done.err
    assert "out of memory" in caplog.text
    units = [read_unit(tmp_path / name / "masks" / "000000-000002.h5") for name in ("plain", "auto")]
    for variant, masks in units[0].token_masks.items():
        assert abs(masks - units[1].token_masks[variant]).max() < 1e-5, variant


@pytest.mark.parametrize("text", ["many", "1.5"])
def test_a_batch_size_that_is_no_number(tiny_pair, run_script, text):
    assert "auto" in run_script(run_seg_cls_opt, *tiny_pair.flags, "--batch-size", text).error
