"""The sanity check (Adebayo et al. 2018) on the shipped digits pair: random weights cost the score."""

import pytest

from ltx.main.baselines import run_baselines
from ltx.main.seg_classification import run_seg_cls, run_seg_cls_opt

DIGITS = ["--explainee-model-name", "vit_digits", "--device", "cpu", "--num-workers", "0"]


@pytest.fixture
def scores(run_script, tmp_path):
    """The closing line's results of a script with the shipped digits pair, in a folder of its own."""

    def run(script, *arguments):
        result = run_script(script, *DIGITS, "--default-root-dir", tmp_path, *arguments)
        assert result.code == 0, result.err
        return result.closing["results"], result.err

    return run


def test_baselines_lose_their_score(scores):
    methods = ["--method", "input_gradient,attention_rollout", "--max-images", "12", "--metrics", "NEG,INS"]
    true, _ = scores(run_baselines, *methods)
    randomised, _ = scores(run_baselines, *methods, "--randomise-weights")
    for method in ("input_gradient", "attention_rollout"):
        for metric in ("NEG", "INS"):
            assert randomised[f"{method}_randomised"][metric] < true[method][metric] - 10, (method, metric)


def test_ltx_loses_its_score(scores, tmp_path, caplog):
    """By ADP. Rank metrics cannot tell on digits: whatever lights up the one bright object wins them."""
    finetune = ["--max-images", "8", "--metrics", "ADP", "--n_epochs_to_optimize_stage_b", "12"]
    true, _ = scores(run_seg_cls_opt, *finetune)
    assert "pretrained on the true model" not in caplog.text
    randomised, _ = scores(run_seg_cls_opt, *finetune, "--randomise-weights")
    assert "pretrained on the true model" in caplog.text
    assert randomised["pltx_randomised"] == true["pltx"]  # which looks at the explainer alone
    assert randomised["last_randomised"]["ADP"] > true["last"]["ADP"] + 30


def test_pltx_loses_its_score_where_pretraining_saw_the_random_model(scores, tmp_path, caplog):
    pretrain = ["--train-images", "64", "--val-images", "8", "--n-epochs", "1", "--run-name", "random"]
    scores(run_seg_cls, *pretrain, "--randomise-weights")
    random = next(tmp_path.rglob("best.safetensors")).parent
    masks = ["--max-images", "8", "--metrics", "ADP", "--RUN-BASE-MODEL"]
    true, _ = scores(run_seg_cls_opt, *masks)
    both, _ = scores(run_seg_cls_opt, *masks, "--randomise-weights", "--explainer-checkpoint", random)
    assert "pretrained on the true model" not in caplog.text
    assert both["pltx_randomised"]["ADP"] > true["pltx"]["ADP"] + 30
