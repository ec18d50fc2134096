"""Explains pictures: what the model sees, and which part of each picture it sees it in.

    python main/explain.py --input photo.jpg
    python main/explain.py --input photo.jpg --target-class "golden retriever" tabby
    python main/explain.py --input folder/ --explainee-model-name resnet --steps 25

Per picture it prints the top 5 classes and what the mask keeps, and writes the overlay, the saliency map
(.png, .npy), the masked picture, a sheet of all of these, and a mask file that the evaluators read.
"""

from pathlib import Path
from runpy import run_path

if not __package__:  # run as a file
    run_path(str(Path(__file__).resolve().parents[1] / "__init__.py"))

from ltx.main.common import cli, progress
from ltx.main.explanation.options import ExplainOptions


@cli.script(ExplainOptions)
def main(options: ExplainOptions) -> tuple[Path, dict, dict]:
    """Explains every picture that the options name."""
    from tqdm import tqdm

    from ltx.datasets.classes import names_of_classes
    from ltx.datasets.pictures import PictureFiles
    from ltx.main.common.devices import pick_device
    from ltx.main.explanation import plan as plan_module
    from ltx.main.explanation import run as run_module
    from ltx.main.runs.build_models import load_explainee
    from ltx.main.runs.skipped import counts
    from ltx.models.registry import input_size

    device = pick_device(options.device)
    pictures = PictureFiles.of(options.input, input_size(options.explainee_model_name))
    skip = options.on_bad_image == "skip"
    pictures.check(skip)
    explainee = load_explainee(options)
    names = names_of_classes(explainee.name, explainee.num_classes, options.class_names)
    plan = plan_module.make_plan(options, explainee, names)
    folder, run = run_module.open_folder(options, explainee, pictures, plan)
    explainee.to(device)
    plan.explainer.to(device)
    print(f"explainee {explainee.name}, explainer {plan.explainer.name}, pLTX weights: {plan.source}")
    side = run_module.side_by_side(plan.batch_size, plan, explainee)
    units = []
    for name, unit, sheet in run_module.explain_all(
        folder, run, explainee, pictures, plan, names, side, skip
    ):
        said = run_module.describe(name, unit, plan, names)
        tqdm.write(f"{said}\n  sheet: {progress.display_path(sheet)}")  # not in the middle of the bar's line
        units.append(unit)
    return folder, run_module.mean_scores(units, plan), counts(folder)


if __name__ == "__main__":
    main()
