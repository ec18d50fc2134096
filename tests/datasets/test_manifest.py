"""Manifests and the drawing of images."""

import pytest

from ltx.config import UserError
from ltx.datasets.digits import DigitsOnPhotos
from ltx.datasets.manifest import draw_per_class, draw_total, from_manifest, read_names
from ltx.main.runs.run_folder import write_manifest

LABELS = [i % 4 for i in range(40)]


def test_round_trip(tmp_path):
    images = DigitsOnPhotos("test", 20)
    write_manifest(tmp_path / "m.csv", images, [7, 3, 11])
    lines = (tmp_path / "m.csv").read_text().splitlines()
    assert lines == ["index,image,label", *(f"{i},{j},{images.labels[j]}" for i, j in enumerate((7, 3, 11)))]
    assert read_names(tmp_path / "m.csv") == ["7", "3", "11"]
    assert from_manifest(tmp_path / "m.csv", images) == [7, 3, 11]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_lists_of_other_tools(tmp_path, encoding):
    """Only the column `image` is needed; names may hold commas and any script."""
    (tmp_path / "m.csv").write_text('image,what\r\n"a, b.png",1\r\nbåt/ñ.jpg,2\r\n', encoding=encoding)
    assert read_names(tmp_path / "m.csv") == ["a, b.png", "båt/ñ.jpg"]


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "no such manifest"),
        (b"", "no column 'image'"),
        (b"a,b\n1,2\n", "no column 'image'"),
        (b"\xff\xfe\x00", "is no manifest"),
    ],
)
def test_bad_manifests(tmp_path, content, message):
    if content is not None:
        (tmp_path / "m.csv").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_names(tmp_path / "m.csv")


def test_a_name_that_is_not_in_the_set(tmp_path):
    write_manifest(tmp_path / "m.csv", DigitsOnPhotos("test", 20), [19])
    with pytest.raises(UserError, match="lists 19, which is not among the 10 images"):
        from_manifest(tmp_path / "m.csv", DigitsOnPhotos("test", 10))


@pytest.mark.parametrize("seed", range(5))
def test_per_class_draw(seed):
    train, val = draw_per_class(LABELS, 3, 2, seed)
    for chosen, n in ((train, 3), (val, 2)):
        assert sorted(LABELS[i] for i in chosen) == sorted(list(range(4)) * n)
        assert len(set(chosen)) == len(chosen)
    assert not set(train) & set(val)
    assert (train, val) == draw_per_class(LABELS, 3, 2, seed)


def test_draws_differ_between_seeds_and_within_classes():
    draws = [draw_per_class(LABELS, 1, 1, seed) for seed in range(20)]
    assert len({str(draw) for draw in draws}) > 15
    assert {i for train, _ in draws for i in train if LABELS[i] == 0} > {0, 4}  # not always the first ones


def test_per_class_draw_can_take_everything():
    train, val = draw_per_class(LABELS, 7, 3, 0)
    assert sorted(train + val) == list(range(40))


def test_too_few_images_of_a_class():
    with pytest.raises(
        UserError, match="class 3 has 9 images, but --train-n-label-sample 8 and --val-n-label-sample 2"
    ):
        draw_per_class(LABELS[:39], 8, 2, 0)
    with pytest.raises(UserError, match="needs labels; use --train-images N and --val-images N"):
        draw_per_class([-1] * 5, 1, 1, 0)
    with pytest.raises(UserError, match="needs labels"):
        draw_per_class([], 1, 1, 0)


def test_total_draw():
    train, val = draw_total(50, 20, 10, 3)
    assert (len(set(train)), len(set(val))) == (20, 10) and not set(train) & set(val)
    assert (train, val) == draw_total(50, 20, 10, 3) != draw_total(50, 20, 10, 4)
    assert max(train + val) < 50
    with pytest.raises(UserError, match="--train-images 41 and --val-images 10 ask for more than the 50"):
        draw_total(50, 41, 10, 0)
