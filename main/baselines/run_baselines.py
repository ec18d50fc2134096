"""Other methods' saliency maps in the same mask files, scored by the same evaluator.

    python main/baselines/run_baselines.py --method grad_cam,rise --explainee-model-name vit_base_224

Any model: random, centre_gaussian, input_gradient, smoothgrad, integrated_gradients, grad_cam,
grad_cam_plus_plus, layer_cam, ablation_cam, full_grad, rise. ViTs also: raw_attention, attention_rollout,
generic_attention, transformer_attribution, legrad. Maps of another tool: import (with --maps-path).
`all` is every method that works for the explainee. Goes on where it was when killed and repeated.
"""

from pathlib import Path
from runpy import run_path

if not __package__:  # run as a file
    run_path(str(Path(__file__).resolve().parents[2] / "__init__.py"))

from ltx import config
from ltx.main.baselines.options import BaselineOptions
from ltx.main.common import cli, progress
from ltx.main.perturbation_eval.options import PerturbationOptions


@cli.script(BaselineOptions)
def main(options: BaselineOptions) -> tuple[Path, dict, dict]:
    """Makes the maps and, unless told not to, evaluates them."""
    from ltx.main.baselines.baseline_run import default_run_name, run_baselines
    from ltx.main.baselines.methods import parse_methods
    from ltx.main.common.devices import pick_device
    from ltx.main.perturbation_eval.evaluator import evaluate_and_print
    from ltx.main.runs.build_images import check_images, open_image_set
    from ltx.main.runs.build_models import load_explainee
    from ltx.main.runs.skipped import counts

    methods = parse_methods(options.method)
    device = pick_device(options.device)
    check_images(options)
    explainee = load_explainee(options).to(device)
    images = open_image_set(options, explainee)
    name = options.run_name or default_run_name(options, images.describe()["kind"])
    folder = (options.default_root_dir or config.RESULTS) / name
    run_baselines(explainee, images, folder, methods, device, options)
    print(f"maps: {progress.display_path(folder)}")
    if not options.evaluate:
        return folder, {}, counts(folder)
    shared = cli.shared(options, PerturbationOptions)
    rows = evaluate_and_print(PerturbationOptions(run_folder=folder, **shared))
    return folder, rows, counts(folder)


if __name__ == "__main__":
    main()
