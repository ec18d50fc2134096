"""LTX masks: finetunes the pair's pLTX explainer on each image, writes mask files and scores them.

    python main/seg_classification/run_seg_cls_opt.py --explainer-model-name vit_base_224 \\
        --explainee-model-name vit_base_224 --train-model-by-target-gt-class True

`--RUN-BASE-MODEL True` writes the pLTX masks instead. Goes on where it was when killed and repeated.
"""

import sys
from pathlib import Path

sys.path[0] = sys.path[0] if __package__ else str(Path(__file__).parents[2])

import config
from config import FinetuneOptions, PerturbationOptions
from main import cli


def main(options: FinetuneOptions) -> tuple[Path, dict]:
    """Makes the masks and, unless told not to, evaluates them."""
    from main.pair import check_images, explainer_path, load_explainee, open_image_set
    from main.perturbation_eval.evaluator import evaluate_and_print
    from main.seg_classification.ltx_run import default_run_name, run_ltx

    device = cli.pick_device(options.device)
    check_images(options)
    explainer_path(options)
    explainee = load_explainee(options).to(device)
    images = open_image_set(options, explainee)
    name = options.run_name or default_run_name(options, images.describe()["kind"])
    folder = (options.default_root_dir or config.RESULTS) / name
    run_ltx(options, explainee, images, folder, device)
    print(f"masks: {cli.display_path(folder)}")
    if not options.evaluate:
        return folder, {}
    shared = cli.shared(options, PerturbationOptions)
    return folder, evaluate_and_print(PerturbationOptions(run_folder=folder, **shared))


if __name__ == "__main__":
    cli.run_script(FinetuneOptions, main)
