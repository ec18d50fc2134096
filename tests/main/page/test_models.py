"""Models by the names that visitors choose or type."""

import pytest

from ltx.config import ALIASES, UserError
from ltx.main.page.models import Models


def test_the_first_model_has_the_flags_of_the_start(models, tiny_pair):
    assert models.first == "tiny (explainee.safetensors)"
    assert models.offered == [models.first, *ALIASES]
    loaded = models.get(models.first)
    assert loaded.explainee.name == "tiny" and loaded.names[3] == "class 3"
    assert loaded.method.source == str(tiny_pair.explainer / "best.safetensors")
    assert models.get(models.first) is loaded


@pytest.mark.parametrize(
    "name",
    [
        "hf:/etc",
        "local-dir:/etc",
        "../tiny",
        "/etc/passwd",
        "hf-hub:a/b",
        "",
        None,
        3,
        ["tiny"],
        "a" * 200,
        "a b",
    ],
)
def test_folders_and_addresses_cannot_be_typed(name, models):
    with pytest.raises(UserError, match=r"^model '.*': type an alias or a timm name") as caught:
        models.get(name)
    assert len(str(caught.value)) < 200


def test_a_wrong_name_is_one_line_and_the_next_works(models):
    with pytest.raises(UserError, match=r"unknown model 'resnet19'; nearest names: "):
        models.get("resnet19")
    with pytest.raises(UserError, match="weights of 'resnet'"):
        models.get("resnet")
    assert models.get(models.first).explainee.name == "tiny"


def test_shipped_models_take_our_recipe_and_few_are_kept(app_options):
    models = Models(app_options())
    shipped = models.get("vit_digits")
    assert shipped.method.source.endswith("predicted-ordered/best.safetensors") and shipped.names[3] == "3"
    models._loaded = type(models._loaded)((name, shipped) for name in ("a", "b", "vit_digits"))
    models.get(models.first)
    assert list(models._loaded) == ["b", "vit_digits", models.first]


def test_without_an_explainer_the_mask_itself_is_trained(app_options, places):
    models = Models(app_options(explainer_checkpoint=None))
    assert "the mask itself" in models.get(models.first).method.source
