"""Size, normalisation and cropping that the options, or a run, say of the explainee's input."""

from ltx.config import DIRECT
from ltx.main.runs.run_record import RunRecord
from ltx.models.registry import input_size


def input_of(options) -> dict:
    """The explainee's input and classes as `ModelOptions` give them; empty where they give nothing."""
    names = ("mean", "std", "input_size", "resize", "multi_label")
    given = {name: getattr(options, name, None) for name in names}
    return {name: value for name, value in given.items() if value not in (None, False, DIRECT)}


def wanted_size(options) -> tuple[int, int]:
    """(H, W) that the explainee will see pictures in, before any weights are looked for.

    Raises:
        UserError: unknown name, or no such size.
    """
    return input_size(
        options.explainee_model_name, options.explainee_checkpoint, options.input_size, options.resize
    )


def size_of_run(run: RunRecord) -> tuple[int, int]:
    """(H, W) of a run's images as its explainee saw them, a `CropSize` where it saw their middle."""
    given = run["explainee"].get("input") or {}
    if "resize" not in given:
        height, width = run["input_size"]
        return height, width
    record = run["explainee"]
    return input_size(record["name"], record.get("checkpoint"), given.get("input_size"), given["resize"])
