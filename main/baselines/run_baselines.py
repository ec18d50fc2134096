"""Other methods' saliency maps in the same mask files, scored by the same evaluator.

    python main/baselines/run_baselines.py --method grad_cam,rise --explainee-model-name vit_base_224

Any model: random, centre_gaussian, input_gradient, smoothgrad, integrated_gradients, grad_cam,
grad_cam_plus_plus, layer_cam, ablation_cam, full_grad, rise. ViTs also: raw_attention, attention_rollout,
generic_attention, transformer_attribution, legrad. Maps of another tool: import (with --maps-path).
`all` is every method that works for the explainee. The same command resumes a run that was killed.
"""

from pathlib import Path
from runpy import run_path

if not __package__:  # run as a file
    run_path(str(Path(__file__).resolve().parents[2] / "__init__.py"))

from ltx.main.baselines.options import BaselineOptions
from ltx.main.common import cli


@cli.script(BaselineOptions)
def main(options: BaselineOptions) -> tuple[Path, dict, dict]:
    """Make the maps and, unless told not to, evaluate them."""
    from ltx.main.baselines import baseline_run
    from ltx.main.perturbation_eval.evaluator import evaluate_and_print
    from ltx.main.perturbation_eval.options import PerturbationOptions

    return baseline_run.run_baselines(options, PerturbationOptions, evaluate_and_print)


if __name__ == "__main__":
    main()
