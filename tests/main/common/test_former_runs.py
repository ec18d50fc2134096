"""Runs that former versions began: the same hash, so that they resume."""

import hashlib
import json

import pytest

from ltx import config
from ltx.config import UserError
from ltx.main.class_eval.options import ClassEvalOptions
from ltx.main.common import cli
from ltx.main.runs.build_models import settled
from ltx.main.runs.run_folder import open_run, resolved_options
from ltx.main.seg_classification.options import FinetuneOptions, PretrainOptions
from ltx.tests.support.scripts import arguments

SHIPPED = sorted((config.ROOT / "checkpoints").glob("*/*/run.json"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parts[-3]}/{path.parts[-2]}")
@pytest.mark.parametrize("change", [{}, {"seed": 7}, {"mask_loss_mul": 4.0}, {"lr": 0.5}], ids=str)
def test_the_shipped_trainings_keep_their_hash(path, change, tmp_path):
    """Given as they were, with the same hash; not with another value of anything that counts."""
    run = json.loads(path.read_text())
    (tmp_path / "run.json").write_text(path.read_text())
    stored = {name: value for name, value in run["options"].items() if value is not None} | change
    options = settled(cli.parse(PretrainOptions, arguments(PretrainOptions, stored)))
    identity = {name: value for name, value in run["identity"].items() if name != "options"}
    if change:
        with pytest.raises(
            UserError, match=f"{next(iter(change))} was .*, now {next(iter(change.values()))}"
        ):
            open_run(tmp_path, options, identity)
    else:
        assert open_run(tmp_path, options, identity)["hash"] == run["hash"]


# Identities that the version before wrote: options at their defaults, and a rate that was given.
_FORMER = {
    "explainee_model_name": "vit_small_224", "seed": 42, "train_model_by_target_gt_class": False,
    "score_class": "explained", "recipe": "released", "explainer_model_name": "vit_small_224",
    "explainer_model_n_first_layers_to_freeze": 0, "activation_function": "sigmoid", "mask_scale": None,
    "mask_halo": None, "mask_loss": "bce", "mask_loss_mul": None, "prediction_loss_mul": 1.0,
    "use_logits_only": False, "is_ce_neg": False, "mask_fill": "black", "order_loss_mul": 0.0,
    "order_removal_mul": 1.0, "order_samples": 2, "smooth_loss_mul": 0.0, "split": None,
}  # fmt: skip
_FORMER_LTX = _FORMER | {
    "max_images": None, "randomise_weights": False, "precision": "float32", "RUN_BASE_MODEL": False,
    "n_epochs_to_optimize_stage_b": 25, "finetune_lr": "5e-5", "lr": None, "optimize_by_pos": True,
    "select_best": True, "early_stop": False, "unit_size": 256,
}  # fmt: skip
_FORMER_CLASSES = _FORMER | {
    "max_images": None, "method": None, "steps": 0, "finetune_lr": 5e-5,
}  # fmt: skip


@pytest.mark.parametrize(
    ("options_class", "former"), [(FinetuneOptions, _FORMER_LTX), (ClassEvalOptions, _FORMER_CLASSES)]
)
def test_runs_of_the_former_version_resume(options_class, former, tmp_path):
    identity = {"explainee": "a", "explainer": "b"}
    hashed = json.dumps({"options": former} | identity, sort_keys=True).encode()
    run = {"hash": hashlib.sha256(hashed).hexdigest(), "identity": {"options": former} | identity}
    (tmp_path / "run.json").write_text(json.dumps(run | {"options": former}))
    names = dict.fromkeys(("explainee_model_name", "explainer_model_name"), "vit_small_224")
    assert open_run(tmp_path, settled(options_class(**names)), identity)["hash"] == run["hash"]
    for change in (
        {"finetune_lr": 1e-4},
        {"mask_loss_mul": 50.0},
        {"mask_loss": "l1"},
        {"recipe": "ordered"},
    ):
        with pytest.raises(UserError, match="another configuration"):
            open_run(tmp_path, settled(options_class(**names, **change)), identity)


def test_a_new_run_stores_what_holds():
    stored = resolved_options(settled(FinetuneOptions(explainee_model_name="vit_digits")))
    assert stored["mask_loss_mul"] == 50 and stored["finetune_lr"] == 5e-5 and stored["batch_size"] == "auto"
    assert stored["activation_function"] == "sigmoid" and stored["recipe"] == "released"
