import numpy as np
import pytest
import torch

from ltx.config import UserError
from ltx.main.perturbation_eval.map_view import ImageBatch, MapView
from ltx.main.perturbation_eval.metrics import METRICS, Metric, choose_metrics, name_of

BY_NAME = {metric.name: metric for metric in METRICS}


def names(text):
    return [metric.name for metric in choose_metrics(text)]


def test_groups_and_lists():
    slow = {"RISE_deletion", "RISE_insertion", "AIC", "SIC"}
    assert names("all") == list(BY_NAME)
    assert set(names("fast")) == set(BY_NAME) - slow
    assert names("SIC, POS") == ["POS", "SIC"]


def test_each_choice_has_a_folder_name_of_its_own():
    assert name_of(choose_metrics("fast")) == "" and name_of(choose_metrics("all")) == "all"
    assert name_of(choose_metrics("SIC,POS")) == "POS-SIC" == name_of(choose_metrics("POS,SIC"))
    assert name_of(choose_metrics(",".join(BY_NAME))) == "all"


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match=r"POSS: no such metric \(did you mean POS\?\)"):
        choose_metrics("POSS,NEG")
    with pytest.raises(UserError, match="names no metric"):
        choose_metrics(",")


def view_of(saliency, shown=None):
    n = len(saliency)
    shown = saliency if shown is None else shown
    return MapView(ImageBatch(None, torch.zeros(n, 3, 2, 2), torch.zeros(n)), saliency, shown)


def test_mask_area_is_the_mean_of_what_multiplies_the_image():
    shown = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.5, 0.5], [0.5, 0.5]]])
    assert BY_NAME["mask_area"].per_image(view_of(7 * shown, shown)).tolist() == [25, 50]


def test_gini_by_hand():
    """All in one pixel of four: 1 - 1/4; equal: 0; 1, 2, 3, 4: 1/4 (mean difference over twice the mean)."""
    maps = torch.tensor([[[0.0, 0], [0, 8]], [[3, 3], [3, 3]], [[4, 1], [3, 2]], [[0, 0], [0, 0]]])
    np.testing.assert_allclose(BY_NAME["gini"].per_image(view_of(maps)).numpy(), [75, 0, 25, 0], atol=1e-9)


def test_gini_is_half_the_relative_mean_difference():
    values = torch.rand(3, 2, 2, generator=torch.Generator().manual_seed(0))
    flat = values.flatten(1).double().numpy()
    expected = np.abs(flat[:, :, None] - flat[:, None]).mean((1, 2)) / (2 * flat.mean(1))
    np.testing.assert_allclose(BY_NAME["gini"].per_image(view_of(values)).numpy(), 100 * expected, rtol=1e-6)


def test_summary_leaves_out_what_does_not_count():
    class Any(Metric):
        name, higher_is_better = "any", True

    summary = Any().summarise(np.array([1.0, np.nan, 4.0]), None)
    assert (summary.mean, summary.n, summary.curve) == (2.5, 2, None)
    assert Any().summarise(np.array([np.nan]), None).mean is None
