"""`main/demo.py`, small but real: every stage runs on the shipped digits pair."""

import json

import pytest

from ltx.main import demo
from ltx.main.runs.build_models import settled
from ltx.main.runs.mask_files import read_unit, unit_files
from ltx.main.seg_classification.options import FinetuneOptions

ROWS = ["random", "input_gradient", "full_grad", "oracle", "pltx", "last", "best_loss", "best_pos"]


@pytest.mark.parametrize("recipe", ["ordered", "released"])
def test_the_whole_method_in_one_command(run_script, tmp_path, no_drawing, recipe):
    flags = ["--n-images", "3", "--train-images", "32", "--n-epochs", "1", "--recipe", recipe]
    flags += ["--device", "cpu", "--num-workers", "0", "--default-root-dir", tmp_path]
    done = run_script(demo, *flags)
    assert done.code == 0, done.err
    folder = tmp_path / ("demo-vit_digits" + ("-ordered" if recipe == "ordered" else ""))
    assert done.closing["run"] == str(folder)
    results = done.closing["results"]
    rows = [row for row in ROWS if row in results]
    assert list(results) == rows and rows[:7] == ROWS[:7]
    for title, metric in (("perturbation (AUCs: 0 to 90)", "POS"), ("segmentation of the digit (%)", "PA")):
        assert f"3 held-out images, {title}" in done.out
        assert all(metric in row for row in results.values())
        table = done.out[done.out.index(title) :].splitlines()[2:]
        assert [line.split()[0] for line in table[: len(rows)]] == rows
    oracle = results["oracle"]
    assert oracle["PA"] == oracle["mIoU"] == pytest.approx(100) and oracle["mAP"] == pytest.approx(100)
    ltx = json.loads((folder / "ltx" / "run.json").read_text())
    expected = settled(FinetuneOptions(explainee_model_name="vit_digits", recipe=recipe))
    assert ltx["identity"]["options"]["finetune_lr"] == expected.finetune_lr
    assert ltx["identity"]["options"]["mask_loss"] == expected.mask_loss
    assert ltx["explainer"]["checkpoint"].startswith(str(folder))
    assert all((folder / name).is_file() for name in ("pictures.png", "report.html"))
    (file,) = unit_files(folder / "oracle")
    made, again = file.stat().st_mtime_ns, run_script(demo, *flags)
    assert again.closing["results"] == results and file.stat().st_mtime_ns == made
    assert read_unit(file).saliency["oracle"].shape == (3, 64, 64)
