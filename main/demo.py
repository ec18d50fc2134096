"""The whole method in one command: pretrains an explainer, explains held-out images and scores the masks.

    python main/demo.py
    python main/demo.py --explainee-model-name efficientnet_lite0 --images-path DIR

Without arguments: digits on photographs, a few CPU minutes. What is there already is not made again: delete
`data/results/demo-<explainee>` to start afresh. Ends in that folder's `report.html`.
"""

from pathlib import Path
from runpy import run_path

if not __package__:  # run as a file
    run_path(str(Path(__file__).resolve().parents[1] / "__init__.py"))

from dataclasses import dataclass
from pathlib import Path

from ltx import config
from ltx.config import RECIPES, recipe_suffix
from ltx.main.common import cli, progress
from ltx.main.common.options import DownloadOptions, ImageOptions, PlaceOptions, RunOptions, option


@dataclass(frozen=True, kw_only=True)
class DemoOptions(RunOptions, PlaceOptions, ImageOptions, DownloadOptions):
    """`main/demo.py`: the whole method in one command."""

    explainee_model_name: str = option("vit_digits", "alias or timm name of explainee and explainer")
    recipe: str = option("ordered", "how explainer and masks are trained", choices=tuple(RECIPES))
    n_images: int = option(64, "held-out images that are explained")
    train_images: int = option(
        2000, "images that the explainer is trained on (photographs: at most what is left)"
    )
    n_epochs: int = option(3, "epochs of pretraining")
    seed: int = option(42, "seed of everything random")


@cli.script(DemoOptions)
def main(options: DemoOptions) -> tuple[Path, dict, dict]:
    """Runs the demo and prints its table and the path of its pictures."""
    from ltx.main.common.devices import pick_device
    from ltx.main.demo_run import Demo
    from ltx.main.runs import tables
    from ltx.main.runs.skipped import counts

    name = options.run_name or f"demo-{options.explainee_model_name}{recipe_suffix(options.recipe)}"
    folder = (options.default_root_dir or config.RESULTS) / name
    demo = Demo(options, folder, pick_device(options.device))
    demo.pretrain()
    demo.make_masks()
    rows = demo.score_perturbation()
    title, candidates = f"{options.n_images} held-out images", demo.candidates()
    print(tables.format_table(rows, f"{title}, perturbation (AUCs: 0 to 90)", candidates))
    means = tables.means_of(rows)
    if demo.on_digits:
        rows = demo.score_segmentation()
        print(tables.format_table(rows, f"{title}, segmentation of the digit (%)", candidates))
        means = {name: means[name] | scores for name, scores in tables.means_of(rows).items()}
    if "best_pos" in means:
        print("best_pos looked at POS to choose its step; the other rows have looked at no metric.")
    print(f"pictures: {progress.display_path(demo.write_pictures())}")
    print(f"report: {progress.display_path(demo.write_report())} (opens in any browser, from disk)")
    return folder, means, counts(folder)


if __name__ == "__main__":
    main()
