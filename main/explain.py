"""Explain pictures: what the model sees, and which part of each picture it sees it in.

    python main/explain.py --input photo.jpg
    python main/explain.py --input photo.jpg --target-class "golden retriever" tabby
    python main/explain.py --input folder/ --explainee-model-name resnet --steps 25

Per picture it prints the top 5 classes and what the mask keeps, and writes a sheet, the overlay, the saliency
map, the masked picture (--outputs names more), and a mask file that the evaluators read; of several pictures
also a gallery, index.html, and a table, scores.csv.
"""

from pathlib import Path
from runpy import run_path

if not __package__:  # run as a file
    run_path(str(Path(__file__).resolve().parents[1] / "__init__.py"))

from ltx.main.common import cli, progress
from ltx.main.explanation.options import ExplainOptions


@cli.script(ExplainOptions)
def main(options: ExplainOptions) -> tuple[Path, dict, dict]:
    """Explain every picture that the options name."""
    from tqdm import tqdm

    from ltx.datasets.pictures import PictureFiles
    from ltx.main.common.devices import pick_device
    from ltx.main.explanation import run
    from ltx.main.explanation.gallery import write_gallery
    from ltx.main.explanation.method import class_names, picture_method
    from ltx.main.runs.build_models import load_explainee
    from ltx.main.runs.explainee_input import wanted_size
    from ltx.main.runs.skipped import counts

    device = pick_device(options.device)
    pictures = PictureFiles.of(options.input, wanted_size(options), options.recursive)
    look = run.look_of(options, previews=len(pictures) > 1)
    pictures.check(options.on_bad_image == "skip")
    explainee = load_explainee(options).to(device)
    names = class_names(options, explainee)
    how = picture_method(options, explainee, names)
    print(f"explainee {explainee.name}, explainer {how.explainer.name}, pLTX weights: {how.source}")
    job, method = run.open_job(options, explainee, pictures, how)
    found = []
    for told in run.explain_all(job, method, how.shown, names, look):
        said = run.describe(told, how.shown, names)
        sheet = progress.display_path(told.sheet)
        tqdm.write(f"{said}\n  sheet: {sheet}")  # not in the middle of the bar's line
        found.append(told)
    if len(pictures) > 1:
        print(f"gallery: {progress.display_path(write_gallery(job.folder, found, names))}")
    return job.folder, run.mean_scores([told.unit for told in found], how.shown), counts(job.folder)


if __name__ == "__main__":
    main()
