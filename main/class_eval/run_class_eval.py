"""Do maps follow the class? The class-conditional explainer, asked for several classes of each picture.

    python main/class_eval/run_class_eval.py --explainee-model-name vit_digits
    python main/class_eval/run_class_eval.py --explainee-model-name efficientnet_lite0 \\
        --segmentation-root DIR --split report

Two digits in one picture are asked for each; an outlined object for its class, and the rest of the picture
for the predicted class where that is another one; and each picture for a class that it does not show. The
plain explainer of the pair and other methods (`--method`) stand beside it. Writes mask files,
per_question.csv, summary.json and sheet.png to data/results/<run>; the same command resumes a run that was
killed.

`object_peak`: share of maps whose maximum lies on the asked object (within 15 pixels of 224, and nearer to it
than to the other one). `object_share`: share of the map's weight on the asked object, of that on both.
`background_*`: the same for the predicted class, on the background. `absent_ratio`: mean of the maps for the
absent class over the mean of those for the objects; other methods' maps are scaled to [0, 1] each, so they
cannot vanish.
"""

from pathlib import Path
from runpy import run_path

if not __package__:  # run as a file
    run_path(str(Path(__file__).resolve().parents[2] / "__init__.py"))

from ltx.main.class_eval.options import ClassEvalOptions
from ltx.main.common import cli, progress

_UNIT = 32  # pictures per mask file


@cli.script(ClassEvalOptions)
def main(options: ClassEvalOptions) -> tuple[Path, dict]:
    """Make the maps, measure them and print the table."""
    from ltx.config import recipe_suffix
    from ltx.main.class_eval.evaluator import PROTOCOL, evaluate, open_pictures
    from ltx.main.class_eval.methods import class_eval_method
    from ltx.main.class_eval.questions import ask_about
    from ltx.main.runs import tables
    from ltx.main.runs.build_models import explainer_name
    from ltx.main.runs.mask_job import MaskJob
    from ltx.models.registry import pair_folder

    def name(options: ClassEvalOptions, kind: str) -> str:
        pair = pair_folder(explainer_name(options), options.explainee_model_name).name
        steps = f"-ltx{options.steps}" if options.steps else ""
        return f"{PROTOCOL}-{kind}-{pair}{steps}{recipe_suffix(options.recipe)}"

    images = open_pictures(options)
    job = MaskJob.open(
        options,
        images,
        name,
        ask=ask_about(images, options.seed),
        unit_size=_UNIT,
        identity={"dataset": images.describe() | {"root": None, "labels": None}},
    )
    rows = evaluate(job, class_eval_method(job))
    print(tables.format_table(rows, f"maps of asked classes, {progress.display_path(job.folder)} (%)"))
    return job.folder, tables.means_of(rows)


if __name__ == "__main__":
    main()
