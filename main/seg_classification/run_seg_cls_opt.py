"""LTX masks: finetunes the pair's pLTX explainer on each image, writes mask files and scores them.

    python main/seg_classification/run_seg_cls_opt.py --explainer-model-name vit_base_224 \\
        --explainee-model-name vit_base_224 --train-model-by-target-gt-class True

`--RUN-BASE-MODEL True` writes the pLTX masks instead. Goes on where it was when killed and repeated.
"""

from pathlib import Path
from runpy import run_path

if not __package__:  # run as a file
    run_path(str(Path(__file__).resolve().parents[2] / "__init__.py"))

from ltx import config
from ltx.main.common import cli, progress
from ltx.main.perturbation_eval.options import PerturbationOptions
from ltx.main.seg_classification.options import FinetuneOptions


@cli.script(FinetuneOptions)
def main(options: FinetuneOptions) -> tuple[Path, dict, dict]:
    """Makes the masks and, unless told not to, evaluates them."""
    from ltx.main.common.devices import pick_device
    from ltx.main.perturbation_eval.evaluator import evaluate_and_print
    from ltx.main.runs.build_images import check_images, open_image_set
    from ltx.main.runs.build_models import explainer_path, load_explainee
    from ltx.main.runs.skipped import counts
    from ltx.main.seg_classification.ltx_run import default_run_name, run_ltx

    device = pick_device(options.device)
    check_images(options)
    explainer_path(options)
    explainee = load_explainee(options).to(device)
    images = open_image_set(options, explainee)
    name = options.run_name or default_run_name(options, images.describe()["kind"])
    folder = (options.default_root_dir or config.RESULTS) / name
    run_ltx(options, explainee, images, folder, device)
    print(f"masks: {progress.display_path(folder)}")
    if not options.evaluate:
        return folder, {}, counts(folder)
    shared = cli.shared(options, PerturbationOptions)
    rows = evaluate_and_print(PerturbationOptions(run_folder=folder, **shared))
    return folder, rows, counts(folder)


if __name__ == "__main__":
    main()
