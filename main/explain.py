"""Explains pictures: what the model sees, and which part of each picture it sees it in.

    python main/explain.py --input photo.jpg
    python main/explain.py --input photo.jpg --target-class "golden retriever" tabby
    python main/explain.py --input folder/ --explainee-model-name resnet --steps 25

Per picture it prints the top 5 classes and what the mask keeps, and writes the overlay, the saliency map
(.png, .npy), the masked picture, a sheet of all of these, and a mask file that the evaluators read.
"""

import sys
from pathlib import Path

sys.path[0] = sys.path[0] if __package__ else str(Path(__file__).parents[1])

from config import ExplainOptions
from main import cli


def main(options: ExplainOptions) -> tuple[Path, dict]:
    """Explains every picture that the options name."""
    from tqdm import tqdm

    from datasets.classes import names_of_classes
    from datasets.pictures import PictureFiles
    from main import explain_run
    from main.pair import load_explainee
    from models.registry import input_size

    device = cli.pick_device(options.device)
    pictures = PictureFiles.of(options.input, input_size(options.explainee_model_name))
    skip = options.on_bad_image == "skip"
    pictures.check(skip)
    explainee = load_explainee(options)
    names = names_of_classes(explainee.name, explainee.num_classes, options.class_names)
    plan = explain_run.make_plan(options, explainee, names)
    folder, run = explain_run.open_folder(options, explainee, pictures, plan)
    explainee.to(device)
    plan.explainer.to(device)
    print(f"explainee {explainee.name}, explainer {plan.explainer.name}, pLTX weights: {plan.source}")
    side = explain_run.side_by_side(options.batch_size, plan, explainee)
    units = []
    for name, unit, sheet in explain_run.explain_all(
        folder, run, explainee, pictures, plan, names, side, skip
    ):
        said = explain_run.describe(name, unit, plan, names)
        tqdm.write(f"{said}\n  sheet: {cli.display_path(sheet)}")  # not in the middle of the bar's line
        units.append(unit)
    return folder, explain_run.mean_scores(units, plan)


if __name__ == "__main__":
    cli.run_script(ExplainOptions, main)
