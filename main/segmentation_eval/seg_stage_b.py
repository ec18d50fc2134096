"""Segmentation, stage b: LTX masks of an image set with object masks, and their scores.

    python main/segmentation_eval/seg_stage_b.py --explainer-model-name vit_base_224 \\
        --explainee-model-name vit_base_224 --dataset-type imagenet

Data sets lie in `--segmentation-root` (default data/): gtsegs_ijcv.mat, coco/, voc/VOCdevkit/VOC2012;
`digits` need nothing. The same command resumes a run that was killed.
"""

from pathlib import Path
from runpy import run_path

if not __package__:  # run as a file
    run_path(str(Path(__file__).resolve().parents[2] / "__init__.py"))

from ltx.main.common import cli
from ltx.main.segmentation_eval.options import SegStageBOptions


@cli.script(SegStageBOptions)
def main(options: SegStageBOptions) -> tuple[Path, dict, dict]:
    """Make the masks and evaluate them."""
    from ltx.main.segmentation_eval.stage import run_stage

    return run_stage(options)


if __name__ == "__main__":
    main()
