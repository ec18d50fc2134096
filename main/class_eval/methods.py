"""The methods that the class evaluation compares, as one method of a mask job."""

import logging
from collections.abc import Callable

from ltx.config import UserError
from ltx.main.baselines.baseline_run import BaselineMaps
from ltx.main.baselines.methods import parse_methods, resolve_methods
from ltx.main.baselines.options import BaselineOptions
from ltx.main.class_eval.options import ClassEvalOptions
from ltx.main.common.cli import shared
from ltx.main.common.memory import SideBySide, measure_slot
from ltx.main.common.options import PairOptions
from ltx.main.runs.build_models import (
    explainer_path,
    pretrained_explainer,
    settled,
    with_explainer_named,
)
from ltx.main.runs.mask_job import MaskJob
from ltx.main.runs.method import Batch, Maps, Method
from ltx.main.seg_classification.finetuning import Settings
from ltx.main.seg_classification.ltx_run import FinetunedMaps, pltx_maps
from ltx.models.checkpoints import weights_sha256
from ltx.models.explainee import Explainee
from ltx.models.explainer import Explainer
from ltx.models.explainer_files import NoExplainerError
from ltx.models.losses import Objective

log = logging.getLogger(__name__)

PROTOCOL = "classes"
CONDITIONAL = "_class_conditional"


def class_eval_method(job: MaskJob) -> Method:
    """The class-conditional explainer, the plain one of the pair where there is one, and other methods.

    Raises:
        UserError: no class-conditional explainer, or a method that does not fit the explainee.
    """
    options, explainee = job.options, job.explainee
    explainers = _explainers(options, explainee)
    parts: list[tuple[Callable[[Batch], Maps], dict[str, str]]] = []
    for explainer in explainers:
        suffix = CONDITIONAL if explainer.class_conditional else ""
        shown = ("pltx", "last") if options.steps else ("pltx",)
        parts.append((_maps_of(explainer, options, explainee), {name: name + suffix for name in shown}))
    baselines = {name: name for name in _baselines(options, explainee)}
    if baselines:
        of_methods = BaselineOptions(
            method=",".join(baselines), explainee_model_name=explainee.name, seed=options.seed
        )
        parts.append((BaselineMaps(baselines, explainee, of_methods), baselines))

    def explain(batch: Batch) -> Maps:
        token_masks, saliency = {}, {}
        for maps_of, names in parts:
            maps = maps_of(batch)
            token_masks |= {names[name]: mask for name, mask in maps.token_masks.items() if name in names}
            saliency |= maps.saliency
        return Maps(token_masks, saliency)

    variants = [name for _, names in parts for name in names.values()]
    identity = {"explainers": [weights_sha256(explainer) for explainer in explainers]}
    record = {"candidates": dict.fromkeys(variants, 1)}
    return Method(PROTOCOL, explain, identity, record, settled(options, explainers[0]))


def _explainers(options: ClassEvalOptions, explainee: Explainee) -> list[Explainer]:
    asked = with_explainer_named(options)
    found = [_explainer(asked, explainee)]
    same = shared(asked, PairOptions, leave_out=("explainer_checkpoint",))
    plain = PairOptions(**same, explainer_checkpoint=options.plain_checkpoint)
    try:
        explainer_path(plain)
    except NoExplainerError as error:
        if options.plain_checkpoint is not None:
            raise
        log.warning("no explainer that is not class-conditional stands beside it: %s", error)
        return found
    return [*found, _explainer(plain, explainee)]


def _explainer(options: ClassEvalOptions | PairOptions, explainee: Explainee) -> Explainer:
    explainer, path, _ = pretrained_explainer(options, explainee)
    print(f"explainer: {path}")
    return explainer.to(explainee.mean.device)


def _maps_of(
    explainer: Explainer, options: ClassEvalOptions, explainee: Explainee
) -> Callable[[Batch], Maps]:
    if not options.steps:
        return pltx_maps(explainer)
    options = settled(options, explainer)
    settings = Settings(
        options.steps, options.finetune_lr, options.finetune_decay, options.kink_width, select=False
    )
    loss = Objective.from_options(options)
    memory = measure_slot(explainer, explainee, loss, settings.select, settings.kink_width)
    side_by_side = SideBySide(options.batch_size, memory, explainee.mean.device)
    return FinetunedMaps(explainer, explainee, loss, settings, side_by_side)


def _baselines(options: ClassEvalOptions, explainee: Explainee) -> list[str]:
    if options.method is not None:
        return resolve_methods(parse_methods(options.method), explainee)
    fitting = []
    for name in ("grad_cam", "generic_attention"):
        try:
            fitting += resolve_methods(parse_methods(name), explainee)
        except UserError as error:
            log.warning("%s is left out: %s", name, error)
    return fitting
