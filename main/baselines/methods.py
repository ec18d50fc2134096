"""The baselines by name."""

from collections.abc import Callable

from ltx.config import UserError
from ltx.main.baselines import (
    attention,
    cams,
    full_grad,
    gradients,
    imported,
    own,
    rise,
    simple,
    transformer_attribution,
)
from ltx.main.baselines.base import Baseline
from ltx.main.baselines.layers import CamModel
from ltx.main.common.names import choose_names
from ltx.models.explainee import Explainee

ALL = "all"
_CAPTUM = ("captum", "captum")
_GRAD_CAM = ("pytorch_grad_cam", "grad-cam")
_attention, _vit = attention.check_attention, transformer_attribution.check_plain_vit

BASELINES = {
    "random": Baseline(simple.random_map, "uniform noise"),
    "centre_gaussian": Baseline(simple.centre_gaussian, "Gaussian in the middle"),
    "input_gradient": Baseline(simple.input_gradient, "Simonyan et al. 2014"),
    "smoothgrad": Baseline(gradients.smoothgrad, "Smilkov et al. 2017 (captum)", package=_CAPTUM),
    "integrated_gradients": Baseline(
        gradients.integrated_gradients, "Sundararajan et al. 2017 (captum)", package=_CAPTUM
    ),
    "grad_cam": Baseline(
        cams.grad_cam, "Selvaraju et al. 2017 (pytorch-grad-cam)", CamModel, package=_GRAD_CAM
    ),
    "grad_cam_plus_plus": Baseline(
        cams.grad_cam_plus_plus, "Chattopadhyay et al. 2018 (pytorch-grad-cam)", CamModel, package=_GRAD_CAM
    ),
    "layer_cam": Baseline(
        cams.layer_cam, "Jiang et al. 2021 (pytorch-grad-cam)", CamModel, package=_GRAD_CAM
    ),
    "ablation_cam": Baseline(cams.ablation_cam, "Desai & Ramaswamy 2020", CamModel),
    "full_grad": Baseline(full_grad.full_grad, "Srinivas & Fleuret 2019"),
    "rise": Baseline(rise.rise, "Petsiuk et al. 2018"),
    "raw_attention": Baseline(attention.raw_attention, "last block's attention", _attention),
    "attention_rollout": Baseline(attention.attention_rollout, "Abnar & Zuidema 2020", _attention),
    "generic_attention": Baseline(attention.generic_attention, "Chefer et al. 2021b", _attention),
    "transformer_attribution": Baseline(
        transformer_attribution.transformer_attribution, "Chefer et al. 2021a", _vit
    ),
    "legrad": Baseline(attention.legrad, "Bousselham et al. 2024", _attention),
    imported.METHOD: Baseline(imported.imported, "imported maps"),
}


def add_baseline(name: str, function: Callable, source: str = "") -> None:
    """Make a function known to `run_baselines` under a name, see `own.from_callable`.

    Raises:
        UserError: the name is taken, or is none that a mask file can carry.
    """
    if name in BASELINES or not name.isidentifier():
        raise UserError(f"baseline '{name}': the name is taken, or no word of letters, digits and '_'")
    BASELINES[name] = own.from_callable(function, source)


def find_baseline(method: str) -> Baseline:
    """Return the baseline of a name of the table, or of `module:function`.

    Raises:
        UserError: see `own.from_name`.
    """
    return own.from_name(method) if own.is_named(method) else BASELINES[method]


def parse_methods(text: str) -> list[str]:
    """Method names of `NAME[,NAME...]`, each once, in the order given; `all` stays as it is.

    Raises:
        UserError: an unknown name, two functions of one name, or a package that is not installed.
    """
    functions = [name.strip() for name in text.split(",") if own.is_named(name)]
    names = choose_names("--method", "method", text, BASELINES, (ALL, *functions))
    for name in (*BASELINES, *functions) if ALL in names else names:
        find_baseline(name).check_package(name)
    short = [own.short_name(name) for name in names]
    for name in functions:
        if short.count(own.short_name(name)) > 1 or own.short_name(name) in BASELINES:
            raise UserError(f"--method {name}: there is another method named '{own.short_name(name)}'")
    return names


def resolve_methods(names: list[str], explainee: Explainee) -> list[str]:
    """`all` replaced by every method that works for the explainee's architecture.

    Raises:
        UserError: a method that was asked for by name does not work for it.
    """
    chosen = []
    for name in names:
        if name == ALL:
            chosen += [other for other in BASELINES if other != imported.METHOD and _works(other, explainee)]
        else:
            find_baseline(name).applies(explainee)
            chosen.append(name)
    return list(dict.fromkeys(chosen))


def _works(name: str, explainee: Explainee) -> bool:
    try:
        BASELINES[name].applies(explainee)
    except UserError:
        return False
    return True
