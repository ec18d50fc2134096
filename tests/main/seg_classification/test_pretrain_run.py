"""Which images a pretraining run draws, and the schedule it plans."""

import math

import pytest

from ltx.config import UserError
from ltx.datasets.digits import DigitsOnPhotos
from ltx.datasets.imagenet import wnid_to_index
from ltx.main.runs.build_models import settled
from ltx.main.runs.run_folder import write_manifest
from ltx.main.seg_classification.options import PretrainOptions
from ltx.main.seg_classification.pretrain_run import choose, make_plan, run_folder
from ltx.models.explainee import Explainee

WNIDS = ("n01440764", "n01443537", "n01484850")


@pytest.fixture
def explainee(make_explainee) -> Explainee:
    return make_explainee("cnn", num_classes=1000)


@pytest.fixture
def class_folders(write_images):
    return write_images([f"{wnid}/{i}.png" for wnid in WNIDS for i in range(4)], size=(8, 8))


def options(**changes):
    return PretrainOptions(**({"explainee_model_name": "resnet10t"} | changes))


# The plan.


def plan_of(options: PretrainOptions, n_train: int):
    return make_plan(settled(options), n_train)


def test_published_pairs_keep_the_released_schedule():
    plan = plan_of(
        PretrainOptions(explainee_model_name="vit_base_224", explainer_model_name="vit_base_224"), 1000
    )
    assert (plan.lr, plan.schedule_images, plan.n_epochs, plan.batch_size) == (2e-3, 50_000, 30, 32)
    assert plan.weight_decay == 0.01 and plan.seed == 42
    assert plan.highest_rate(1000) == pytest.approx(2e-4, rel=0.05)


@pytest.mark.parametrize(
    "names",
    [("efficientnet_lite0", None), ("vit_digits", None), ("vit_base_224", "resnet"), ("resnet10t", None)],
)
def test_other_pairs_are_scheduled_on_their_own_images(names):
    plan = plan_of(PretrainOptions(explainee_model_name=names[0], explainer_model_name=names[1]), 1000)
    assert plan.lr == 2e-4
    n_steps = math.ceil(1000 / 32) * 30
    assert plan.highest_rate(1000) == pytest.approx(2e-4)
    assert 0 < plan.rate(n_steps - 1) < 2e-6 and plan.rate(n_steps) == 0  # down to nothing with the last step


def test_rate_and_size_can_be_set():
    plan = plan_of(PretrainOptions(explainee_model_name="resnet", lr=0.1, schedule_images=320), 1000)
    assert (plan.lr, plan.schedule_images) == (0.1, 320)


@pytest.mark.parametrize("name", ["n_epochs", "batch_size", "save_every"])
def test_sizes_must_be_positive(name):
    with pytest.raises(UserError, match="--n-epochs, --batch-size, --save-every and --accumulate"):
        plan_of(options(**{name: 0}), 10)


# The images.


def labels_of(images, chosen):
    return sorted(images.labels[i] for i in chosen)


def test_per_class_draw_is_disjoint_and_balanced(explainee, class_folders):
    train_set, train, val_set, val = choose(
        options(images_path=str(class_folders), train_n_label_sample=2, val_n_label_sample=1), explainee
    )
    classes = sorted(wnid_to_index()[wnid] for wnid in WNIDS)
    assert labels_of(train_set, train) == sorted(classes * 2) and labels_of(val_set, val) == classes
    assert not {train_set.names[i] for i in train} & {val_set.names[i] for i in val}


def test_draws_follow_the_seed(explainee, class_folders):
    def draw(seed):
        chosen = choose(options(images_path=str(class_folders), seed=seed), explainee)
        return chosen[1], chosen[3]

    assert draw(1) == draw(1) and len({str(draw(seed)) for seed in range(5)}) > 1


def test_too_few_images_of_a_class_is_one_clear_line(explainee, class_folders):
    with pytest.raises(
        UserError, match=r"class \d+ has 4 images.*--train-n-label-sample 4.*--train-images"
    ) as error:
        choose(options(images_path=str(class_folders), train_n_label_sample=4), explainee)
    assert "\n" not in str(error.value)


def test_so_many_in_all(explainee, class_folders):
    _, train, _, val = choose(
        options(images_path=str(class_folders), train_images=7, val_images=5), explainee
    )
    assert (len(train), len(val)) == (7, 5) and not set(train) & set(val)
    with pytest.raises(UserError, match="--train-images 8 and --val-images 5 ask for more than the 12"):
        choose(options(images_path=str(class_folders), train_images=8, val_images=5), explainee)
    with pytest.raises(UserError, match="belong together"):
        choose(options(images_path=str(class_folders), train_images=8), explainee)


def test_manifests_choose_exactly(explainee, class_folders, tmp_path):
    images, *_ = choose(options(images_path=str(class_folders)), explainee)
    write_manifest(tmp_path / "train.csv", images, [5, 2, 9])
    write_manifest(tmp_path / "val.csv", images, [1])
    train_set, train, val_set, val = choose(
        options(
            images_path=str(class_folders),
            train_manifest=tmp_path / "train.csv",
            val_manifest=tmp_path / "val.csv",
        ),
        explainee,
    )
    assert [train_set.names[i] for i in train] == [images.names[i] for i in (5, 2, 9)]
    assert [val_set.names[i] for i in val] == [images.names[1]]


@pytest.mark.parametrize("which", ["train", "val"])
@pytest.mark.parametrize("sizes", [{}, {"train_images": 6, "val_images": 6}])
def test_what_one_manifest_lists_is_not_drawn_for_the_other(explainee, class_folders, tmp_path, which, sizes):
    images, *_ = choose(options(images_path=str(class_folders)), explainee)
    write_manifest(tmp_path / "list.csv", images, [5, 2, 9, 0, 1, 11])
    chosen = choose(
        options(images_path=str(class_folders), **{f"{which}_manifest": tmp_path / "list.csv"}, **sizes),
        explainee,
    )  # fmt: skip
    assert len(chosen[1]) == len(chosen[3]) == 6 and not set(chosen[1]) & set(chosen[3])


def test_another_folder_for_training(explainee, class_folders, write_images, tmp_path):
    other = write_images([f"{WNIDS[0]}/other{i}.png" for i in range(3)], tmp_path / "train", size=(8, 8))
    train_set, train, val_set, val = choose(
        options(
            images_path=str(class_folders), train_images_path=str(other), train_images=2, val_images=4
        ),
        explainee,
    )  # fmt: skip
    assert all("other" in train_set.names[i] for i in train) and len(train) == 2 and len(val) == 4
    assert not any("other" in name for name in val_set.names)


def test_splits_of_a_labels_file(explainee, write_images):
    names = [f"{i}.png" for i in range(9)]
    folder = write_images(names, size=(8, 8))
    rows = [f"{name},{i},{('train', 'tune', 'report')[i % 3]}" for i, name in enumerate(names)]
    (folder / "labels.csv").write_text("img_name,label,split\n" + "\n".join(rows) + "\n")
    train_set, train, val_set, val = choose(
        options(images_path=str(folder), train_split="train", split="tune"), explainee
    )
    assert [train_set.names[i] for i in train] == ["0.png", "3.png", "6.png"]
    assert [val_set.names[i] for i in val] == ["1.png", "4.png", "7.png"]


def test_digits_train_and_validate_on_different_digits(digits_weights):
    explainee = Explainee.from_name("vit_digits", digits_weights.explainee)
    train_set, train, val_set, val = choose(
        PretrainOptions(explainee_model_name="vit_digits", train_images=30, val_images=20), explainee
    )
    assert (len(train), len(val)) == (30, 20)
    assert isinstance(train_set, DigitsOnPhotos) and (train_set.split, val_set.split) == ("fit", "tune")


def test_run_folder_follows_pair_and_class(places, tmp_path):
    checkpoints = places / "checkpoints"
    assert (
        run_folder(PretrainOptions(train_model_by_target_gt_class=True))
        == checkpoints / "vit_base" / "target"
    )
    assert run_folder(options()) == checkpoints / "resnet10t" / "predicted"
    unequal = PretrainOptions(explainee_model_name="resnet", explainer_model_name="vit_base_224")
    assert run_folder(unequal) == checkpoints / "vit_base_224__resnet" / "predicted"
    randomised = options(randomise_weights=True)
    assert run_folder(randomised) == checkpoints / "resnet10t" / "predicted-randomised"
    named = options(default_root_dir=tmp_path / "runs", run_name="mine")
    assert run_folder(named) == tmp_path / "runs" / "resnet10t" / "mine"
