import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from ltx.main.baselines.selection import best_of, smooth, smoothing_strengths
from ltx.main.perturbation_eval.curves import auc, removal_curve
from ltx.models.explainee import read_class


def test_strengths_start_at_the_map_itself():
    assert smoothing_strengths(5, (32, 64)) == [0, 1, 2, 3, 4]
    assert smoothing_strengths(1, (32, 64)) == [0]


def test_smoothing_is_gaussian():
    """Against SciPy's, mirrored at the edge, cut at three sigma."""
    maps = np.random.default_rng(0).random((2, 24, 32))
    found = smooth(torch.from_numpy(maps), 2.0).numpy()
    expected = [gaussian_filter(one, 2.0, mode="mirror", truncate=3) for one in maps]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_keeps_the_candidate_with_the_lowest_pos(make_tiny, make_batch):
    explainee = make_tiny("vit")
    batch = make_batch(explainee, 6)
    maps = torch.rand(6, 32, 32)
    best, which = best_of(explainee, batch.images, maps, batch.classes, 4)
    unmasked = read_class(explainee, batch.images, batch.classes)
    scores = torch.stack(
        [
            auc(removal_curve(explainee, batch.images, smooth(maps, s), batch.classes, True, unmasked)[1])
            for s in smoothing_strengths(4, (32, 32))
        ]
    )
    assert (scores.argmin(0) != 0).any(), "nothing was selected here"
    np.testing.assert_allclose(scores.gather(0, which[None])[0], scores.min(0).values)
    for i in range(6):
        first = np.flatnonzero(np.isclose(scores[:, i], scores[:, i].min()))[0]
        assert which[i] == first
        torch.testing.assert_close(best[i], smooth(maps, smoothing_strengths(4, (32, 32))[first])[i])
