"""From options to the models of a run: explainee, explainer, objective, and what identifies their weights."""

import dataclasses
import logging
from pathlib import Path

import torch
from torch import Tensor

from ltx.config import RELEASED, UserError
from ltx.main.common.options import ExplainerOptions
from ltx.main.common.recipes import RECIPE, filled, usual_values
from ltx.main.runs.explainee_input import input_of
from ltx.main.runs.files import read_json
from ltx.main.runs.run_record import RunRecord
from ltx.models.explainee import Explainee
from ltx.models.explainer import Explainer
from ltx.models.explainer_files import (
    NoExplainerError,
    find_explainer,
    load_explainer,
    stored_class_rows,
    stored_mask_scale,
    stored_spec,
)
from ltx.models.losses import Objective
from ltx.models.ownership import difference, trained_for
from ltx.models.published import holds_pair

log = logging.getLogger(__name__)

# Metadata of an explainer that was pretrained for a model with random weights.
RANDOMISED_EXPLAINEE = "randomised_explainee"


def explainer_name(options) -> str:
    """The explainer's name: as the explainee unless it is given."""
    return options.explainer_model_name or options.explainee_model_name


def with_explainer_named(options):
    """The options with the explainer named, so that naming the default is no other configuration."""
    return dataclasses.replace(options, explainer_model_name=explainer_name(options))


def settled(options, explainer: Explainer | None = None):
    """Return the options with those that are None set: by recipe, checkpoint or default, see `recipes`.

    Args:
        options: of a script that trains an explainer or makes masks with one.
        explainer: makes the masks; with the metadata of its checkpoint.

    Raises:
        UserError: unknown explainer, or a number out of its range.
    """

    def kind_of(name: str) -> str:
        with torch.device("meta"):
            built = explainer or Explainer.untrained(name)
        return "tokens" if built.has_tokens else "feature_map"

    metadata = (explainer and explainer.metadata) or {}
    names = explainer_name(options), options.explainee_model_name
    options = filled(options, usual_values(options.stage, options.recipe, metadata, *names, kind_of))
    return filled(options, Objective.from_options(options).as_options())


def load_explainee(options) -> Explainee:
    """The explainee of the options; that of the explainer's published file where one is used for both.

    Raises:
        UserError: unknown name or no weights.
    """
    checkpoint = options.explainee_checkpoint
    if checkpoint is None and isinstance(options, ExplainerOptions):
        checkpoint = _published_file(options)
    return Explainee.from_name(
        options.explainee_model_name, checkpoint, options.download, **input_of(options)
    )


def _published_file(options) -> Path | None:
    """The file that holds both explainer and explainee, where the options lead to one."""
    if explainer_name(options) != options.explainee_model_name:
        return None
    try:
        path = explainer_path(options)
    except UserError:
        if options.explainer_checkpoint is not None:
            raise
        return None
    return path if holds_pair(path) else None


def explainer_path(options) -> Path:
    """Path of the pair's pLTX explainer.

    Raises:
        UserError: there is none; the message says what to put where.
    """
    return find_explainer(
        explainer_name(options),
        options.explainee_model_name,
        options.train_model_by_target_gt_class,
        options.explainer_checkpoint,
        options.class_conditional,
        options.recipe or RELEASED,
    )


def model_to_explain(explainee: Explainee, options) -> Explainee:
    """The model whose decisions the maps explain: the explainee, or with `SanityOptions` its random twin."""
    if not options.randomise_weights:
        return explainee
    return explainee.with_random_weights(options.seed).to(explainee.mean.device)


def new_explainer(options, explainee: Explainee, mask_scale: int = 1) -> Explainer:
    """An explainer with pretrained backbone and a fresh head, drawn with the options' seed.

    Args:
        options: names, seed and shape.
        explainee: whose own weights are used where the architecture is the same.
        mask_scale: see `Explainer`.

    Raises:
        UserError: unknown name, no weights, or a `mask_halo` out of range.
    """
    torch.manual_seed(options.seed)
    explainer = Explainer.for_explainee(
        explainer_name(options),
        explainee,
        options.activation_function or "sigmoid",
        options.explainer_model_n_first_layers_to_freeze,
        options.class_conditional,
        mask_scale,
        options.download,
    )
    _set_halo(explainer, options)
    return explainer


def _set_halo(explainer: Explainer, options) -> None:
    """Give an explainer the halo that is asked for, where one is."""
    halo = explainer.halo if options.mask_halo is None else options.mask_halo
    if not 0 <= halo < 1:
        raise UserError(f"--mask-halo {halo:g} must be at least 0 and below 1")
    explainer.halo = halo


def start_from_plain(options, explainer: Explainer, explainee: Explainee | None = None) -> Path | None:
    """Give a class-conditional explainer the weights of the pair's plain one, where there is one.

    A class-conditional file that `--explainer-checkpoint` names is gone on from.

    Returns:
        The file, None where there is none.

    Raises:
        UserError: `--explainer-checkpoint` names none that fits.
    """
    try:
        path = explainer_path(dataclasses.replace(options, class_conditional=False))
        if explainee is not None:
            check_owner(options, explainee, path)
    except NoExplainerError:
        if options.explainer_checkpoint is not None:
            raise
        return None
    if stored_class_rows(path) is not None:
        load_explainer(path, explainer)
        _set_halo(explainer, options)
        return path
    plain = Explainer.untrained(explainer.name, explainer.activation, mask_scale=explainer.mask_scale)
    load_explainer(path, plain)
    explainer.load_state_dict(plain.state_dict(), strict=False)
    return path


def _sha256_of_run(run: dict) -> str | None:
    """Hash of the explainee in a run.json, where it says."""
    record = run.get("explainee")
    return record.get("sha256") if isinstance(record, dict) else None


def check_owner(options, explainee: Explainee, path: Path) -> None:
    """Lets another explainee's explainer through only where `--explainer-checkpoint` names it, and says so.

    Files of former versions lack the explainee's hash; `run.json` beside them has it.

    Raises:
        NoExplainerError: the file belongs to another explainee, and is not named.
    """
    sha256 = trained_for(path, explainer_name(options))
    record = path.parent / "run.json"
    if sha256 is None and record.is_file():
        sha256 = _sha256_of_run(read_json(record))
    found = difference(sha256, explainee)
    if found is None:
        return
    if options.explainer_checkpoint is not None:
        log.warning("the explainer in %s %s", path, found)
        return
    raise NoExplainerError(
        f"the explainer in {path} {found}; train one with main/seg_classification/run_seg_cls.py, or name "
        "that file with --explainer-checkpoint to use it all the same"
    )


def pretrained_explainer(options, explainee: Explainee) -> tuple[Explainer, Path, dict]:
    """The pair's pLTX explainer, the file it came from, and that file's metadata.

    Raises:
        UserError: there is none, or it does not fit.
    """
    path = explainer_path(options)
    check_owner(options, explainee, path)
    rows = stored_class_rows(path)
    if options.class_conditional and rows is None:
        raise UserError(f"--class-conditional True: {path} holds an explainer that knows of no classes")
    if rows is not None and (known := len(rows) if isinstance(rows, Tensor) else rows) != (
        explainee.num_classes
    ):
        raise UserError(
            f"{path} was trained for {known} classes and '{explainee.name}' has {explainee.num_classes}"
        )
    scale = stored_mask_scale(path)
    if options.mask_scale not in (None, scale):
        raise UserError(f"--mask-scale {options.mask_scale}: {path} holds an explainer of scale {scale}")
    if explainer_name(options) == explainee.name and rows is None:
        explainer = new_explainer(options, explainee, scale)
    else:  # every weight follows, so none are looked for
        explainer = Explainer.untrained(
            explainer_name(options),
            options.activation_function or "sigmoid",
            options.explainer_model_n_first_layers_to_freeze,
            rows,
            scale,
            stored_spec(path, explainer_name(options)),
        )
    metadata = load_explainer(path, explainer)
    _set_halo(explainer, settled(options, explainer))
    log.info("pLTX explainer: %s", path)
    if options.recipe not in (None, trained := metadata.get(RECIPE, RELEASED)):
        log.warning("%s was pretrained with --recipe %s, not with %s", path, trained, options.recipe)
    return explainer, path, metadata


def explainee_record(options, explainee: Explainee) -> dict:
    """The explainee's entry in run.json."""
    checkpoint, given = options.explainee_checkpoint or explainee.checkpoint, input_of(options)
    return ({"input": given} if given else {}) | {
        "name": explainee.name,
        "checkpoint": None if checkpoint is None else str(Path(checkpoint).resolve()),
        "sha256": explainee.sha256,
    }


def explainee_of_run(run: RunRecord, download: bool = False) -> Explainee:
    """The explainee that a run's masks explain.

    Args:
        run: the run's run.json.
        download: let timm fetch weights that its cache lacks.

    Raises:
        UserError: its weights are no longer there, or are others.
    """
    record = run["explainee"]
    given = record.get("input") or {}
    explainee = Explainee.from_name(record["name"], record.get("checkpoint"), download, **given)
    if explainee.sha256 != record["sha256"]:
        raise UserError(
            f"the weights of explainee '{record['name']}' are not those that the masks were made for"
        )
    return explainee
