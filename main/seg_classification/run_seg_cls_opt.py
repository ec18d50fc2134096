"""LTX masks: finetune the pair's pLTX explainer on each image, write mask files and score them.

    python main/seg_classification/run_seg_cls_opt.py --explainer-model-name vit_base_224 \\
        --explainee-model-name vit_base_224 --train-model-by-target-gt-class True

`--RUN-BASE-MODEL True` writes the pLTX masks instead. The same command resumes a run that was killed.
"""

from pathlib import Path
from runpy import run_path

if not __package__:  # run as a file
    run_path(str(Path(__file__).resolve().parents[2] / "__init__.py"))

from ltx.main.common import cli
from ltx.main.seg_classification.options import FinetuneOptions


@cli.script(FinetuneOptions)
def main(options: FinetuneOptions) -> tuple[Path, dict, dict]:
    """Make the masks and, unless told not to, evaluate them."""
    from ltx.main.perturbation_eval.evaluator import evaluate_and_print
    from ltx.main.perturbation_eval.options import PerturbationOptions
    from ltx.main.seg_classification.ltx_run import run_ltx

    return run_ltx(options, PerturbationOptions, evaluate_and_print)


if __name__ == "__main__":
    main()
