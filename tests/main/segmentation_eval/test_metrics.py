import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    jaccard_score,
)

from ltx.main.segmentation_eval.metrics import METRICS, Sample, VoidPolicy, void_policies

RELEASED = VoidPolicy(1, METRICS)
NAMES = ["PA", "mAP", "mIoU", "mF1", "mF1_released", "mAP_released"]


def score(labels, maps, policy=RELEASED) -> dict[str, float]:
    """The metrics of images, from their columns."""
    values = np.array(
        [policy.per_image(label, saliency) for label, saliency in zip(labels, maps, strict=True)]
    )
    names = [metric.name for metric in policy.named_metrics]
    return dict(zip(names, policy.totals(values), strict=True))


def random_case(seed: int, ignored: bool = False, n: int = 5, size: tuple[int, int] = (9, 7)):
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1 if ignored else 0, 2, (n, *size))
    return labels, rng.normal(size=(n, *size)).astype(np.float32) * 3 + labels


@pytest.mark.parametrize("ignored", [False, True])
def test_metrics_agree_with_scikit_learn(ignored):
    labels, maps = random_case(0, ignored)
    flat, found, ap, f1, rows = [], [], [], [], []
    for label, saliency in zip(labels, maps, strict=True):
        scaled = (saliency - saliency.min()) / (saliency.max() - saliency.min())
        mask, counted = saliency > saliency.mean(), label >= 0
        flat.append(label[counted])
        found.append(mask[counted])
        scores = np.concatenate([1 - scaled[counted], scaled[counted]])
        ap.append(average_precision_score(np.concatenate([label[counted] == 0, label[counted] == 1]), scores))
        f1.append(f1_score(label[counted], mask[counted]))
        rows += [
            f1_score(label[r][counted[r]], mask[r][counted[r]], zero_division=0) for r in range(len(label))
        ]
    truth, prediction = np.concatenate(flat), np.concatenate(found)
    expected = {
        "PA": accuracy_score(truth, prediction),
        "mAP": np.mean(ap),
        "mIoU": jaccard_score(truth, prediction, average="macro"),
        "mF1": np.mean(f1),
        "mF1_released": np.mean(rows),
        "mAP_released": np.mean(ap),  # equal but for scores that float32 merges
    }
    got = score(labels, maps)
    assert list(got) == NAMES
    for name, value in expected.items():
        assert got[name] == pytest.approx(100 * value, rel=1e-6), name


def test_worked_by_hand():
    labels = np.array([[[1, 1, 0, 0], [0, 0, 0, 0]]])
    maps = np.array([[[4.0, 0.0, 4.0, 0.0], [0.0, 0.0, 0.0, 0.0]]])
    got = score(
        labels, maps
    )  # above the mean of 1: one hit, one false alarm; one miss, five rightly left out
    assert got["PA"] == pytest.approx(100 * 6 / 8)
    assert got["mIoU"] == pytest.approx(100 * (1 / 3 + 5 / 7) / 2)
    assert got["mF1"] == pytest.approx(100 * 2 / 4)
    assert got["mF1_released"] == pytest.approx(100 * (0.5 + 0) / 2)  # the row without foreground counts 0
    # Scores 1: hit as object, false alarm as object, and six zeros as background, five of them rightly.
    # Scores 0: the rest. Precision 6/8 at recall 6/8, then 8/16 at recall 1.
    assert got["mAP"] == pytest.approx(100 * (6 / 8 * 6 / 8 + 2 / 8 * 8 / 16))


def test_a_map_that_is_the_mask_is_perfect():
    labels = random_case(1)[0]
    labels[:, 0] = 1  # so that every row but the first has both sides
    labels[:, :, 0], labels[:, 1:, 1] = 1, 0
    assert score(labels, labels.astype(np.float32)) == pytest.approx(dict.fromkeys(NAMES, 100.0))


def test_totals_are_over_the_whole_set_and_not_means_of_images():
    labels = [np.ones((1, 10), int), np.zeros((1, 10), int)]
    maps = [np.eye(1, 10), np.eye(1, 10)]
    got = score(labels, maps)
    assert got["PA"] == 50  # 1 and 9 of 10
    assert got["mIoU"] == pytest.approx(100 * (1 / 11 + 9 / 19) / 2)
    assert got["mF1"] == pytest.approx(100 * (2 / 11 + 0) / 2)


def test_constant_maps_are_background_and_scored_as_zeros():
    labels = np.array([[[1, 0, 0, 0]]])
    for value in (0.0, 0.7, -3.0):
        sample = Sample(labels[0], np.full((1, 4), value))
        assert not sample.foreground.any() and not sample.scaled.any()
        got = score(labels, np.full((1, 1, 4), value))
        assert got["PA"] == 75 and got["mF1"] == got["mF1_released"] == 0
        assert got["mIoU"] == pytest.approx(100 * (0 + 3 / 4) / 2)
        zeros = average_precision_score([0, 1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0])
        assert got["mAP"] == pytest.approx(100 * zeros)
        assert got["mAP_released"] == pytest.approx(50)  # every score is equal: the share of ones


def test_the_released_ap_merges_scores_that_differ_by_less_than_float32_tells_from_one():
    """1 - 1e-9 is 1 in float32: there the object's faint pixel ties with the background."""
    labels = np.array([[[1, 1, 0, 0]]])
    maps = np.array([[[1.0, 1e-9, 0.0, 0.0]]], dtype=np.float32)
    exact, merged = [0, 1e-9, 0, 0], [0, 0, 0, 0]
    for name, faint in (("mAP", exact), ("mAP_released", merged)):
        background = 1 - np.array([1.0, faint[1], 0.0, 0.0])
        wanted = average_precision_score([0, 0, 1, 1, 1, 1, 0, 0], [*background, 1.0, 1e-9, 0.0, 0.0])
        assert score(labels, maps)[name] == pytest.approx(100 * wanted), name
    assert score(labels, maps)["mAP"] != score(labels, maps)["mAP_released"]


def test_no_foreground_and_all_foreground():
    empty, full = np.zeros((1, 2, 4), int), np.ones((1, 2, 4), int)
    maps = np.array([[[1.0, 0, 0, 0], [0, 0, 0, 0]]])
    nothing, everything = score(empty, maps), score(full, maps)
    assert nothing["PA"] == pytest.approx(700 / 8) and everything["PA"] == pytest.approx(100 / 8)
    assert nothing["mIoU"] == pytest.approx(100 * (0 + 7 / 8) / 2)
    assert everything["mIoU"] == pytest.approx(100 * (1 / 8 + 0) / 2)
    assert nothing["mF1"] == nothing["mF1_released"] == 0
    assert everything["mF1"] == pytest.approx(100 * 2 / 9)
    assert everything["mF1_released"] == pytest.approx(100 * (2 / 5 + 0) / 2)


def test_one_pixel_object():
    labels = np.zeros((1, 8, 8), int)
    labels[0, 5, 2] = 1
    sharp, blurred = labels.astype(float), np.zeros((1, 8, 8))
    blurred[0, 4:7, 1:4] = 1
    assert score(labels, sharp)["mF1"] == 100
    assert score(labels, sharp)["mF1_released"] == pytest.approx(100 / 8)
    assert score(labels, blurred)["mF1"] == pytest.approx(100 * 2 / (1 + 9))
    assert score(labels, blurred)["PA"] == pytest.approx(100 * (64 - 8) / 64)


def test_ignored_pixels_do_not_count_but_belong_to_the_map():
    labels = np.array([[[1, 0, -1, -1]]])
    maps = np.array([[[1.0, 0.0, 4.0, 4.0]]])  # mean 2.25: nothing but the ignored pixels is foreground
    got = score(labels, maps)
    assert got["PA"] == 50 and got["mF1"] == 0
    assert score(np.full((1, 1, 4), -1), maps) == dict.fromkeys(NAMES, 0.0)


def test_void_is_foreground_as_released_or_ignored_each_under_its_name():
    labels = np.array([[[1, 255, 0, 0]]])
    maps = np.array([[[3.0, 0.0, 0.0, 0.0]]])
    both = {}
    for policy in void_policies(has_void=True):
        both |= score(labels, maps, policy)
    assert list(both) == [*NAMES, *(f"{name}_void_ignored" for name in NAMES[:-2])]
    assert both["PA"] == 75 and both["PA_void_ignored"] == 100
    assert both["mF1"] == pytest.approx(100 * 2 / 3) and both["mF1_void_ignored"] == 100
    assert both["mIoU"] == pytest.approx(100 * (1 / 2 + 2 / 3) / 2) and both["mIoU_void_ignored"] == 100
    assert both["mAP"] < 100 and both["mAP_void_ignored"] == 100
    columns = [column for policy in void_policies(has_void=True) for column in policy.columns]
    assert len(columns) == len(set(columns)) == 14
    assert [policy.suffix for policy in void_policies(True, "foreground")] == [""]
    assert [policy.suffix for policy in void_policies(True, "ignore")] == ["_void_ignored"]
    assert [policy.suffix for policy in void_policies(False, "ignore")] == [""]
