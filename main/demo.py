"""The whole method in one command: pretrains an explainer, explains held-out images and scores the masks.

    python main/demo.py
    python main/demo.py --explainee-model-name efficientnet_lite0 --images-path DIR

Without arguments: digits on photographs, a few CPU minutes. What is there already is not made again: delete
`data/results/demo-<explainee>` to start afresh. Ends in that folder's `report.html`.
"""

import sys
from pathlib import Path

sys.path[0] = sys.path[0] if __package__ else str(Path(__file__).parents[1])

import config
from config import DemoOptions, recipe_suffix
from main import cli


def main(options: DemoOptions) -> tuple[Path, dict]:
    """Runs the demo and prints its table and the path of its pictures."""
    from main import results
    from main.demo_run import Demo

    name = options.run_name or f"demo-{options.explainee_model_name}{recipe_suffix(options.recipe)}"
    folder = (options.default_root_dir or config.RESULTS) / name
    demo = Demo(options, folder, cli.pick_device(options.device))
    demo.pretrain()
    demo.make_masks()
    rows = demo.score_perturbation()
    title, candidates = f"{options.n_images} held-out images", demo.candidates()
    print(results.format_table(rows, f"{title}, perturbation (AUCs: 0 to 90)", candidates))
    means = results.means_of(rows)
    if demo.on_digits:
        rows = demo.score_segmentation()
        print(results.format_table(rows, f"{title}, segmentation of the digit (%)", candidates))
        means = {name: means[name] | scores for name, scores in results.means_of(rows).items()}
    if "best_pos" in means:
        print("best_pos looked at POS to choose its step; the other rows have looked at no metric.")
    print(f"pictures: {cli.display_path(demo.write_pictures())}")
    print(f"report: {cli.display_path(demo.write_report())} (opens in any browser, from disk)")
    return folder, means


if __name__ == "__main__":
    cli.run_script(DemoOptions, main)
