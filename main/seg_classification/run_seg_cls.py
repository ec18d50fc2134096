"""pLTX pretraining: trains an explainer for a pair over a set of images.

    python main/seg_classification/run_seg_cls.py --enable-checkpointing True \\
        --explainer-model-name vit_base_224 --explainee-model-name vit_base_224 --mask-loss-mul 50 \\
        --train-model-by-target-gt-class True --n-epochs 30 --train-n-label-sample 1

Writes `best` and `last` weights, `epochs.csv`, both manifests and pictures to
`checkpoints/<pair>/<target|predicted, or --run-name>/`, and resumes when killed and repeated.

On several GPUs or machines the same command gives the same explainer (--batch-size is that of all together):

    torchrun --nproc-per-node 4 main/seg_classification/run_seg_cls.py ...
    srun --ntasks 8 --gpus-per-task 1 python main/seg_classification/run_seg_cls.py ...
"""

import logging
from pathlib import Path
from runpy import run_path

if not __package__:  # run as a file
    run_path(str(Path(__file__).resolve().parents[2] / "__init__.py"))

from ltx.main.common import cli, progress
from ltx.main.seg_classification.options import PretrainOptions

log = logging.getLogger(__name__)


@cli.script(PretrainOptions)
def main(options: PretrainOptions) -> tuple[Path, dict, dict]:
    """Trains and reports the best epoch."""
    from ltx.main.common import launch
    from ltx.main.common.devices import pick_device
    from ltx.main.runs.build_images import images_of
    from ltx.main.runs.build_models import load_explainee
    from ltx.main.runs.skipped import counts
    from ltx.main.seg_classification.pretrain_run import pretrain
    from ltx.main.seg_classification.validation import collapse

    device = pick_device(options.device)
    images_of(options)  # before weights are looked for
    explainee = load_explainee(options).to(device)
    folder, rows = pretrain(options, explainee, device, launch.start(device))
    best = min(rows, key=lambda row: row["val_POS"])
    print(
        f"best epoch {best['epoch']}: validation POS {best['val_POS']:.2f}, "
        f"mask area {best['val_mask_area']:.3f}"
    )
    print(f"explainer: {progress.display_path(folder)}")
    figures = {"POS": best["val_POS"], "mask_area": best["val_mask_area"], "epoch": best["epoch"]}
    if (said := collapse(best["val_mask_area"])) is None:
        return folder, {"pltx": figures}, counts(folder)
    log.warning(said)
    return folder, {"pltx": figures}, counts(folder) | {"collapsed": True}


if __name__ == "__main__":
    main()
