"""The whole method in one command: pretrains an explainer, explains held-out images and scores the masks.

    python main/demo.py
    python main/demo.py --explainee-model-name efficientnet_lite0 --images-path DIR

Without arguments: digits on photographs, a few CPU minutes. What is there already is not made again: delete
`data/results/demo-<explainee>` to start afresh.
"""

import sys
from pathlib import Path

sys.path[0] = sys.path[0] if __package__ else str(Path(__file__).parents[1])

import config
from config import DemoOptions
from main import cli, results
from main.demo_run import Demo


def main(options: DemoOptions) -> tuple[Path, dict]:
    """Runs the demo and prints its table and the path of its pictures."""
    folder = (options.default_root_dir or config.RESULTS) / (options.run_name or f"demo-{options.explainee_model_name}")
    demo = Demo(options, folder, cli.pick_device(options.device))
    demo.pretrain()
    rows = demo.score_masks()
    print(results.format_table(rows, f"{options.n_images} held-out images, perturbation metrics (AUC: 0 to 90)"))
    print(f"pictures: {cli.display_path(demo.write_pictures())}")
    return folder, results.means_of(rows)


if __name__ == "__main__":
    cli.run_script(DemoOptions, main)
