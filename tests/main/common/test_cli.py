"""Command lines to options: the published commands, what is false, what is ignored, what is wrong."""

import dataclasses
import io
import json
import logging
import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ltx import config
from ltx.config import UserError
from ltx.main.common import cli
from ltx.main.common.options import option
from ltx.main.perturbation_eval.options import PerturbationOptions
from ltx.main.seg_classification.options import FinetuneOptions, PretrainOptions
from ltx.main.train_digits import TrainDigitsOptions

PRETRAIN = (
    "--enable-checkpointing True --explainer-model-name vit_base_224 --explainee-model-name vit_base_224 "
    "--mask-loss-mul 50 --train-model-by-target-gt-class True --n-epochs 30 --train-n-label-sample 1"
)
FINETUNE = (
    "--explainer-model-name vit_base_224 --explainee-model-name vit_base_224 "
    "--train-model-by-target-gt-class True"
)


def changed(options) -> dict:
    """The options that are not at their defaults."""
    return {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(options)
        if getattr(options, field.name) != field.default
    }


# The published command lines.


def test_published_pretraining():
    options = cli.parse(PretrainOptions, shlex.split(PRETRAIN))
    assert changed(options) == {
        "explainer_model_name": "vit_base_224",
        "mask_loss_mul": 50.0,
        "train_model_by_target_gt_class": True,
        "train_n_label_sample": 1,
    }
    assert options.enable_checkpointing is True and options.n_epochs == 30
    assert options.explainee_model_name == "vit_base_224"


def test_published_finetuning():
    options = cli.parse(FinetuneOptions, shlex.split(FINETUNE))
    assert changed(options) == {
        "explainer_model_name": "vit_base_224",
        "train_model_by_target_gt_class": True,
    }
    assert options.RUN_BASE_MODEL is False and options.n_epochs_to_optimize_stage_b == 25
    assert options.finetune_lr is None and options.optimize_by_pos is True


@pytest.mark.parametrize("text, value", [("True", True), ("False", False), ("", True)])
@pytest.mark.parametrize(
    "flag",
    ["--RUN-BASE-MODEL", "--optimize-by-pos", "--is-ce-neg", "--use-logits-only", "--verbose",
     "--train-model-by-target-gt-class", "--early-stop"],
)  # fmt: skip
def test_booleans(flag, text, value):
    """`True`, `False`, or the flag on its own; `False` is false."""
    options = cli.parse(FinetuneOptions, [flag, *text.split()])
    name = flag.removeprefix("--").replace("-", "_")
    assert getattr(options, name) is value


@pytest.mark.parametrize("text", ["maybe", "2", "None", "Fals"])
def test_what_is_no_boolean(text):
    with pytest.raises(UserError, match=f"--is-ce-neg: wanted True or False, got '{text}'"):
        cli.parse(FinetuneOptions, ["--is-ce-neg", text])


def test_every_published_option_of_finetuning():
    options = cli.parse(
        FinetuneOptions,
        shlex.split(
            "--optimize-by-pos False --mask-loss l1 --mask-loss-mul 30 --prediction-loss-mul 0.5 --lr 0.001 "
            "--is-ce-neg False --use-logits-only True --explainer-model-n-first-layers-to-freeze 6 "
            "--n_epochs_to_optimize_stage_b 10 --batch-size 8 --verbose True --default-root-dir /tmp/x "
            "--train-n-label-sample 1 --val-n-label-sample 1 --device cpu --seed 7 --max-images 3 "
            "--run-name mine --explainee-checkpoint a.pth --explainer-checkpoint b --RUN-BASE-MODEL False"
        ),
    )
    assert changed(options) == {
        "optimize_by_pos": False, "mask_loss": "l1", "mask_loss_mul": 30.0, "prediction_loss_mul": 0.5,
        "lr": 0.001, "use_logits_only": True, "is_ce_neg": False,
        "explainer_model_n_first_layers_to_freeze": 6,
        "n_epochs_to_optimize_stage_b": 10, "batch_size": 8, "verbose": True,
        "default_root_dir": Path("/tmp/x"), "device": "cpu", "seed": 7, "max_images": 3, "run_name": "mine",
        "explainee_checkpoint": Path("a.pth"), "explainer_checkpoint": Path("b"),
    }  # fmt: skip


def test_evaluator_takes_its_run_folder_as_it_stands():
    options = cli.parse(PerturbationOptions, ["data/results/x", "--fill", "blur", "--score-class", "target"])
    assert changed(options) == {
        "run_folder": Path("data/results/x"), "fill": "blur", "score_class": "target",
    }  # fmt: skip


@pytest.mark.parametrize("options_class", [PretrainOptions, FinetuneOptions, TrainDigitsOptions])
def test_defaults_are_the_dataclasss_own(options_class):
    assert cli.parse(options_class, []) == options_class()


# What has no effect.


@pytest.mark.parametrize("flag", cli.IGNORED_FLAGS)
@pytest.mark.parametrize("value", [[], ["True"]], ids=["alone", "valued"])
@pytest.mark.parametrize("options_class", [PretrainOptions, FinetuneOptions])
def test_ignored_flags_warn_in_one_line(caplog, options_class, flag, value):
    assert cli.parse(options_class, [flag, *value, "--seed", "5"]).seed == 5
    assert [record.getMessage() for record in caplog.records] == [f"{flag} has no effect here and is ignored"]


def test_flags_of_the_other_published_script_warn(caplog):
    cli.parse(
        FinetuneOptions, shlex.split("--train-n-label-sample 1 --enable-checkpointing True --n-epochs 3")
    )
    cli.parse(PretrainOptions, shlex.split("--RUN-BASE-MODEL False --optimize-by-pos True"))
    assert len(caplog.records) == 5 and all("no effect" in record.getMessage() for record in caplog.records)


def test_no_warning_without_such_flags(caplog):
    cli.parse(PretrainOptions, shlex.split(PRETRAIN))
    assert not caplog.records


# What is wrong.


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--n-epoch", "3"], "unrecognized arguments: --n-epoch 3"),
        (["--n-epochs", "three"], "--n-epochs: invalid int value: 'three'"),
        (["--n-epochs"], "--n-epochs: expected one argument"),
        (["--mask-loss", "l2"], "--mask-loss: invalid choice: 'l2'"),
        (["--device", "tpu"], "--device: invalid choice: 'tpu'"),
        (["surplus"], "unrecognized arguments: surplus"),
    ],
)
def test_wrong_command_lines(argv, message):
    with pytest.raises(UserError) as error:
        cli.parse(PretrainOptions, argv)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("flag", "text", "value"),
    [("--batch-size", "auto", "auto"), ("--batch-size", "3", 3), ("--finetune-lr", "released", "released"),
     ("--finetune-lr", "2e-4", 2e-4)],
)  # fmt: skip
def test_a_number_or_a_word(flag, text, value):
    assert getattr(cli.parse(FinetuneOptions, [flag, text]), flag[2:].replace("-", "_")) == value
    number = "a number" if flag == "--finetune-lr" else "a whole number"
    with pytest.raises(UserError, match=f"{flag}: wanted {number} or '[a-z]+', got 'fast'"):
        cli.parse(FinetuneOptions, [flag, "fast"])


def test_a_group_gives_its_heading_and_freedom_to_its_own_fields_alone():
    fields = {field.name: field for field in dataclasses.fields(PretrainOptions)}
    own = {name: (fields[name].metadata["group"], fields[name].metadata["free"]) for name in fields}
    assert own["n_epochs"] == ("training", False) and own["accumulate"] == ("training", True)
    assert own["num_workers"] == ("run", True) and own["precision"] == ("run", False)
    assert own["mask_loss"] == ("objective", False) and own["recipe"] == ("models", False)


def test_parsing_and_help_need_no_models():
    code = (
        "import runpy, sys; runpy.run_path('__init__.py');"
        "from ltx.main.common import cli;"
        "from ltx.main.seg_classification.options import FinetuneOptions;"
        "cli.parse(FinetuneOptions, ['--recipe', 'ordered', '--explainee-model-name', 'resnet18']);"
        "assert not {'torch', 'timm', 'ltx.models', 'ltx.main.runs'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=config.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_missing_run_folder():
    with pytest.raises(UserError, match="RUN_FOLDER"):
        cli.parse(PerturbationOptions, [])


# A script around them.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    number: int = option(1, "a number")
    verbose: bool = option(False, "talk")
    sizes: tuple[int, ...] = option((1, 2), "some numbers")


def script(result):
    """A module with a `main` that returns or raises `result`."""

    def main(options: Options):
        print("words for people")
        if isinstance(result, BaseException):
            raise result
        return result(options)

    return SimpleNamespace(main=main)


def test_a_backend_of_notebooks_and_an_output_in_ascii_do_no_harm(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://of.a.notebook")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    seen = []

    def work(options):
        seen.append(os.environ.get("MPLBACKEND"))
        print("B\u00e4r")
        return None, {}

    cli.run_script(Options, script(work).main, ["--number", "1"])
    sys.stdout.flush()
    assert seen == [None] and b"B\\xe4r\n" in sys.stdout.buffer.getvalue()


def test_closing_line_is_one_line_of_json(run_script):
    done = run_script(script(lambda o: (Path("data/x"), {"ltx": {"POS": float(o.number)}})), "--number", 4)
    assert done.code == 0
    assert done.out.splitlines()[0] == "words for people"
    assert json.loads(done.out.splitlines()[-1]) == {
        "run": str(Path("data/x").absolute()),
        "results": {"ltx": {"POS": 4.0}},
    }
    assert run_script(script(lambda o: (None, {}))).closing == {"run": None, "results": {}}
    left_out = {"skipped": 2, "not_finite": 0}
    closing = run_script(script(lambda o: (None, {}, left_out))).closing
    assert closing == {"run": None, "results": {}, "skipped": 2}


def test_several_values(run_script):
    done = run_script(script(lambda o: (None, {"sizes": {"n": list(o.sizes)}})), "--sizes", 3, 4, 5)
    assert done.closing["results"]["sizes"]["n"] == [3, 4, 5]


def test_mistakes_are_one_line_and_exit_code_2(run_script):
    done = run_script(script(UserError("no such file:\n  x.csv;   pass another")))
    assert done.error == "error: no such file: x.csv; pass another"
    assert run_script(script(lambda o: (None, {})), "--nonsense", 1).error.startswith("error: unrecognized")


def test_ctrl_c(run_script):
    done = run_script(script(KeyboardInterrupt()))
    assert done.code == 130 and "resume" in done.err


def test_other_errors_keep_their_traceback(run_script):
    with pytest.raises(ZeroDivisionError):
        run_script(script(lambda o: 1 / 0))


def test_verbose_shows_the_log(run_script):
    before = logging.getLogger().level
    try:
        run_script(script(lambda o: (None, {})), "--verbose")
        assert logging.getLogger().level == logging.INFO
    finally:
        logging.getLogger().setLevel(before)


def test_help_names_every_flag_with_its_default(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.parse(PretrainOptions, ["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert stop.value.code == 0
    assert "--train-model-by-target-gt-class" in text and "(default: 32)" in text
    assert "--plot-path" not in text


def test_paths_that_are_not_there_are_told_before_anything_runs(run_script, tmp_path):
    """A folder that is made by the run, and `digits`, need not be there."""

    def run(*flags):
        ran = []

        def main(options: FinetuneOptions):
            ran.append(options)
            return None, {}

        main.__module__ = __name__
        result = run_script(SimpleNamespace(main=main), *flags)
        return result, bool(ran)

    for flag in ("--images-path", "--labels-path", "--manifest", "--explainee-checkpoint"):
        result, ran = run(flag, tmp_path / "nothing")
        assert result.error == f"error: {flag} {tmp_path}/nothing: no such file or folder" and not ran
    result, ran = run(
        "--images-path", "digits", "--default-root-dir", tmp_path / "new", "--manifest", tmp_path
    )
    assert result.code == 0 and ran
