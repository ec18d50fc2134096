"""Converts a published LTX checkpoint to safetensors: its explainer and its explainee in one file.

    python main/convert_checkpoint.py "checkpoints/vit_base/vit_base_target_best_auc__epoch=30.ckpt" \\
        checkpoints/vit_base/target/best.safetensors

The new file can be passed wherever the old one can, and is about half as long. The optimiser's state, which
`--finetune-lr released` needs, goes to a `.pt` beside it, where the old file has one.
"""

from pathlib import Path
from runpy import run_path

if not __package__:  # run as a file
    run_path(str(Path(__file__).resolve().parents[1] / "__init__.py"))

from dataclasses import MISSING, dataclass
from pathlib import Path

from ltx.config import UserError
from ltx.main.common import cli, progress
from ltx.main.common.options import option


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """`main/convert_checkpoint.py`: a published checkpoint to safetensors."""

    input: Path = option(MISSING, "published checkpoint (.ckpt)", flag="INPUT")
    output: Path = option(MISSING, "file to write (.safetensors)", flag="OUTPUT")


@cli.script(ConvertOptions)
def main(options: ConvertOptions) -> tuple[Path, dict]:
    """Check that the file fits one of the published pairs, and write it anew."""
    from ltx.models import published
    from ltx.models.checkpoints import load_weights, save_safetensors, save_state
    from ltx.models.explainer import Explainer
    from ltx.models.explainer_files import load_explainer, published_alias
    from ltx.models.registry import load_pretrained

    if options.output.suffix != ".safetensors":
        raise UserError(f"{options.output}: wanted a name that ends in .safetensors")
    weights = load_weights(options.input)
    name, pair = published_alias(weights, options.input), published.split(weights)
    explainer = Explainer.untrained(name)
    metadata = load_explainer(options.input, explainer)
    load_pretrained(name, options.input)
    metadata |= {
        "explainer": name,
        "explainee": name,
        "activation": explainer.activation,
        "source": options.input.name,
    }
    save_safetensors(options.output, published.join(pair), metadata)
    print(f"{options.input} holds the pair {name} -> {progress.display_path(options.output)}")
    try:
        state = published.training_state(options.input, list(explainer.trainable()))
    except UserError:
        print("no optimiser's state in it: --finetune-lr released will not work")
    else:
        save_state(options.output.with_suffix(".pt"), state)
    sizes = {"explainer": pair.explainer, "explainee": pair.explainee}
    return options.output, {
        role: {"tensors": len(tensors), "parameters": sum(value.numel() for value in tensors.values())}
        for role, tensors in sizes.items()
    }


if __name__ == "__main__":
    main()
