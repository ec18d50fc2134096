"""Segmentation, stage a: pLTX masks of an image set with object masks, and their scores.

    python main/segmentation_eval/seg_stage_a.py --explainer-model-name vit_base_224 \\
        --explainee-model-name vit_base_224 --dataset-type imagenet

Data sets lie in `--segmentation-root` (default data/): gtsegs_ijcv.mat, coco/, voc/VOCdevkit/VOC2012;
`digits` need nothing. Goes on where it was when killed and repeated.
"""

import sys
from pathlib import Path

sys.path[0] = sys.path[0] if __package__ else str(Path(__file__).parents[2])

from config import SegStageAOptions
from main import cli


def main(options: SegStageAOptions) -> tuple[Path, dict]:
    """Makes the masks and evaluates them."""
    from main.segmentation_eval.stage import run_stage

    return run_stage(options)


if __name__ == "__main__":
    cli.run_script(SegStageAOptions, main)
