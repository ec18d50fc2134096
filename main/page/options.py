"""Options of `app.py`."""

from pathlib import Path
from typing import ClassVar

from ltx.main.common import options as common
from ltx.main.common.options import option, options


@options("finetuning", free=True)
class AppOptions(
    common.DeviceOptions,
    common.ConditionOptions,
    common.ExplainerOptions,
    common.ModelOptions,
):
    """`main/app.py`: a page that explains pictures."""

    ignored_flags: ClassVar[tuple[str, ...]] = ("--num-workers",)

    host: str = option("127.0.0.1", "address to listen on; 0.0.0.0 lets other machines in", group="page")
    port: int = option(7860, "port to listen on; 0 takes a free one", group="page")
    max_megabytes: int = option(20, "largest file that is taken, in megabytes", group="page")
    max_megapixels: int = option(50, "largest picture that is taken, in megapixels", group="page")
    time_limit: int = option(120, "longest time for one answer, in seconds", group="page")
    explainee_model_name: str = option(
        "efficientnet_lite0", "alias or timm name of the model to start with", group="models", free=False
    )
    train_model_by_target_gt_class: bool = option(
        False, "explainer trained on true classes", group="models", free=False
    )
    class_names: Path | None = option(None, "text file of the class names, one per line", group="models")
    steps: int = option(10, "LTX steps that the slider starts at; 0: one forward pass", metavar="N")
    finetune_lr: float | None = option(None, "learning rate (default: as for masks; 5e-4 without pLTX)")
