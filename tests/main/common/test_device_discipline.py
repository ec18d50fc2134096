"""Every tensor names its device: the method runs on the CPU while the default device is another.

With `meta` as the default device, a tensor that is made without a device has no values, and the first
operation that joins it with one of the CPU fails, as it would on CUDA.
"""

import pytest
import torch

from ltx.main.api import explain
from ltx.main.baselines.methods import BASELINES, resolve_methods
from ltx.main.baselines.options import BaselineOptions
from ltx.main.perturbation_eval.map_view import ImageBatch, MapView
from ltx.main.perturbation_eval.metrics import METRICS
from ltx.main.runs.method import Batch
from ltx.main.seg_classification.finetuning import Settings, finetune, pltx
from ltx.main.seg_classification.pretraining import Plan, Trainer
from ltx.models.losses import Objective

KINDS = ("vit", "cnn")
N = 3
SELF_CONTAINED = [name for name, method in BASELINES.items() if not method.package and name != "import"]


@pytest.fixture
def images():
    return torch.rand(N, 3, 32, 32)


@pytest.fixture
def elsewhere():
    """Another default device, once the models and images are made."""
    return torch.device("meta")


def on_the_cpu(values):
    assert all(value.device.type == "cpu" for value in values)


@pytest.mark.parametrize("kind", KINDS)
def test_finetuning(make_explainer, make_explainee, images, elsewhere, kind):
    explainer, explainee = make_explainer(kind), make_explainee("cnn").speed_up()
    classes = torch.tensor([0, 1, 2])
    settings = Settings(n_steps=3, lr=1e-3, decay=True, kink_width=0.1, slots=2)
    objective = Objective(order_loss_mul=1.0)
    with elsewhere:
        masks, figures = finetune(explainer, explainee, images, classes, classes, objective, settings)
        masks |= {"forward": pltx(explainer, images)["pltx"]}
    on_the_cpu([*masks.values(), *figures.values()])


@pytest.mark.parametrize("fill", ["black", "mean", "blur"])
def test_objectives(make_explainer, make_explainee, images, elsewhere, fill):
    explainer, explainee = make_explainer(), make_explainee()
    with elsewhere:
        found = Objective(fill=fill, is_ce_neg=True)(
            explainee, images, explainer(images), torch.zeros(N, dtype=torch.long, device="cpu")
        )
    on_the_cpu(found.values())


@pytest.mark.parametrize("conditional", [False, True])
def test_a_pretraining_step(make_explainer, make_explainee, images, elsewhere, tmp_path, conditional):
    explainee = make_explainee("cnn")
    more = {"class_rows": explainee.num_classes} if conditional else {}
    explainer = make_explainer(**more)
    plan = Plan(n_epochs=1, batch_size=N, lr=1e-3, weight_decay=0.01, schedule_images=N, by_target=False)
    trainer = Trainer(explainer, explainee, Objective(), [], range(N), [], [], plan, tmp_path)
    data = {"image": images, "label": torch.arange(N), "index": torch.arange(N)}
    with elsewhere:
        trainer._train_step(data, N, True)
    on_the_cpu(explainer.parameters())
    on_the_cpu(trainer.sums.values())


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_evaluation(make_explainee, images, elsewhere, metric):
    explainee, classes, maps = make_explainee(), torch.arange(N), torch.rand(N, 32, 32)
    with elsewhere:
        view = MapView(ImageBatch(explainee, images, classes, "blur", 8), maps, maps)
        assert len(metric.per_image(view).numpy()) == N
        detail = metric.detail(view)
    if detail is not None:
        on_the_cpu([detail])


@pytest.mark.parametrize("name", SELF_CONTAINED)
def test_baselines(make_explainee, images, elsewhere, name):
    explainee = make_explainee("cnn" if name.endswith("cam") else "vit")
    if name not in resolve_methods(["all"], explainee):
        pytest.skip("not for this architecture")
    options = BaselineOptions(method=name, rise_masks=5)
    batch = Batch(images, torch.arange(N), [str(i) for i in range(N)])
    with elsewhere:
        maps = BASELINES[name].compute(explainee, batch, options)
    on_the_cpu([maps])


@pytest.mark.parametrize("steps", [0, 2])
def test_explain(make_explainer, make_explainee, images, elsewhere, steps):
    explainer, explainee = make_explainer(), make_explainee("cnn")
    with elsewhere:
        found = explain(explainer, explainee, images, steps=steps)
    on_the_cpu([found.target, found.saliency, *found.scores.values()])


def test_explaining_a_function(make_explainer, make_explainee, images, elsewhere):
    explainer, explainee = make_explainer(), make_explainee("cnn")
    with elsewhere:
        found = explain(explainer, explainee, images, lambda logits: logits[:, 0], steps=2)
    on_the_cpu([found.saliency, *found.scores.values()])
