"""Which class a user means."""

import pytest

from ltx.config import UserError
from ltx.datasets.classes import find_class, names_of_classes, short_name
from ltx.datasets.imagenet import class_names


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("207", 207), ("n02099601", 207), ("golden retriever", 207), ("Golden_Retriever", 207),
        (" golden  retriever ", 207), ("tabby cat", 281), ("tabby", 281), ("Carassius auratus", 1), ("0", 0),
    ],
)  # fmt: skip
def test_imagenet_classes_by_index_wordnet_id_or_name(text, index):
    assert find_class(text, class_names()) == index


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("golden retreiver", r"nearest names: golden retriever \(207\)"),
        ("retriever", r"nearest names: .*golden retriever \(207\)"),
        ("crane", r"several classes \(134: crane; 517: crane\); pass an index"),
        ("1000", r"classes are 0 \.\.\. 999"),
        ("-1", r"classes are 0 \.\.\. 999"),
        ("n99999999", r"is no class"),
        ("qqqqqqqq", r"nearest names: none; pass an index, 0 \.\.\. 999"),
        ("", r"is no class"),
    ],
)
def test_a_class_that_does_not_exist_is_one_line(text, message):
    with pytest.raises(UserError, match=message):
        find_class(text, class_names())


def test_other_classifiers_have_their_own_names(tmp_path):
    assert names_of_classes("resnet18", 3) == ["class 0", "class 1", "class 2"]
    assert names_of_classes("vit_digits", 10)[7] == "7"
    assert short_name(names_of_classes("efficientnet_lite0", 1000)[1]) == "goldfish"
    (tmp_path / "names.txt").write_text("ship\nsea dog, seal\n")
    names = names_of_classes("resnet18", 2, tmp_path / "names.txt")
    assert find_class("seal", names) == 1
    with pytest.raises(UserError, match="n02099601"):
        find_class("n02099601", names)
    with pytest.raises(UserError, match=r"has 2 names, 'resnet18' 3 classes"):
        names_of_classes("resnet18", 3, tmp_path / "names.txt")
    with pytest.raises(UserError, match="cannot be read"):
        names_of_classes("resnet18", 3, tmp_path / "nothing.txt")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("names.txt", "\ufeffcat\r\ndog\r\n\r\n"),
        ("names.json", '["cat", "dog"]'),
        ("id2label.json", '{"1": "dog", "0": "cat"}'),
        ("label2id.json", '{"dog": 1, "cat": 0}'),
        ("config.json", '{"model": "x", "id2label": {"0": "cat", "1": "dog"}}'),
        ("timm.json", '{"label_names": ["cat", "dog"]}'),
    ],
)
def test_files_of_class_names(name, text, tmp_path):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert names_of_classes("resnet18", 2, tmp_path / name) == ["cat", "dog"]


@pytest.mark.parametrize("text", ["3", "{}", '{"0": "cat", "2": "dog"}', '{"a": "b"}', "[1, 2]", "{"])
def test_json_without_class_names_is_one_line(text, tmp_path):
    (tmp_path / "names.json").write_text(text)
    with pytest.raises(UserError, match=r"--class-names .*names\.json cannot be read: \S"):
        names_of_classes("resnet18", 2, tmp_path / "names.json")
