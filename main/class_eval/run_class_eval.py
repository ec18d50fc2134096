"""Does the map follow the class? The class-conditional explainer, asked for several classes of each picture.

    python main/segmentation_eval/run_class_eval.py --explainee-model-name vit_digits
    python main/segmentation_eval/run_class_eval.py --explainee-model-name efficientnet_lite0 \\
        --segmentation-root DIR --split report

Two digits in one picture are asked for each; an outlined object for its class, and the rest of the picture
for the predicted class where that is another one; and each picture for a class that it does not show. The
plain explainer of the pair and other methods (`--method`) stand beside it. Writes run.json, per_question.csv,
summary.json and sheet.png to data/results/<run>.

`object_peak`: share of maps whose maximum lies on the asked object (within 15 pixels of 224, and nearer to it
than to the other one). `object_share`: share of the map's weight on the asked object, of that on both.
`background_*`: the same for the predicted class, on the background. `absent_ratio`: mean of the maps for the
absent class over the mean of those for the objects; other methods' maps are scaled to [0, 1] each, so they
cannot vanish.
"""

import sys
from pathlib import Path

sys.path[0] = sys.path[0] if __package__ else str(Path(__file__).parents[2])

import config
from config import ClassEvalOptions, recipe_suffix
from main import cli


def main(options: ClassEvalOptions) -> tuple[Path, dict]:
    """Makes the maps, measures them and prints the table."""
    from datasets.imagenet import check_labels
    from main import results
    from main.pair import explainer_name, load_explainee
    from main.segmentation_eval.class_eval import PROTOCOL, evaluate, open_pictures
    from models.registry import pair_folder

    device = cli.pick_device(options.device)
    images = open_pictures(options)
    explainee = load_explainee(options).to(device)
    check_labels(images, explainee.num_classes)
    pair = pair_folder(explainer_name(options), options.explainee_model_name).name
    steps = f"-ltx{options.steps}" if options.steps else ""
    name = (
        options.run_name
        or f"{PROTOCOL}-{images.describe()['kind']}-{pair}{steps}{recipe_suffix(options.recipe)}"
    )
    folder = (options.default_root_dir or config.RESULTS) / name
    rows = evaluate(options, explainee, images, folder, device)
    print(results.format_table(rows, f"maps of asked classes, {cli.display_path(folder)} (%)"))
    return folder, results.means_of(rows)


if __name__ == "__main__":
    cli.run_script(ClassEvalOptions, main)
