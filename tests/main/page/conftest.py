"""A page's models, tiny and random."""

import pytest
from PIL import Image

from ltx.main.page.models import Models
from ltx.main.page.options import AppOptions


@pytest.fixture
def app_options(tiny_pair):
    """`app_options(**values)`: those of a page with the tiny pair."""

    def make(**values):
        given = {
            "explainee_model_name": "tiny", "explainee_checkpoint": tiny_pair.explainee,
            "explainer_checkpoint": tiny_pair.explainer / "best.safetensors", "device": "cpu",
        }  # fmt: skip
        return AppOptions(**(given | values))

    return make


@pytest.fixture
def models(app_options):
    """The tiny pair as the page's first model."""
    return Models(app_options())


@pytest.fixture
def loaded(models):
    """The tiny pair, ready."""
    return models.get(models.first)


@pytest.fixture
def picture(write_images):
    """A picture 60 pixels wide and 40 high."""
    return Image.open(write_images(["a.png"], size=(40, 60)) / "a.png").convert("RGB")
