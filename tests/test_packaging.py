"""The repository as the package `ltx`: what an installation contains, and `import ltx` beside others."""

import json
import tomllib

import pytest

import ltx
from ltx import config
from ltx.main import api
from ltx.tests.support.scripts import FILES, module_of

PROJECT = tomllib.loads((config.ROOT / "pyproject.toml").read_text())
SHIPPED = ("best.safetensors", "explainee.safetensors", "explainee.json", "run.json", "epochs.csv")


def module_name(path):
    return ".".join(["ltx", *path.relative_to(config.ROOT).with_suffix("").parts])


def test_all_packages_are_listed():
    files = (path for part in ("datasets", "main", "models") for path in (config.ROOT / part).rglob("*.py"))
    assert sorted(PROJECT["tool"]["setuptools"]["packages"]) == sorted(
        {"ltx"} | {module_name(path.parent) for path in files}
    )


def test_every_package_has_its_marker():
    for name in PROJECT["tool"]["setuptools"]["packages"]:
        assert config.ROOT.joinpath(*name.split(".")[1:], "__init__.py").is_file(), name


def test_every_script_is_a_console_command():
    commands = PROJECT["project"]["scripts"]
    assert sorted(commands.values()) == sorted(f"{module_name(path)}:main" for path in FILES)
    assert all(name.startswith("ltx-") for name in commands)


@pytest.mark.parametrize("pair", ["vit_digits", "efficientnet_lite0"])
def test_shipped_checkpoints_and_templates_are_package_data(pair):
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["ltx"]
    packaged = {path for pattern in patterns for path in config.ROOT.glob(pattern)}
    wanted = [path for name in SHIPPED for path in (config.ROOT / "checkpoints" / pair).rglob(name)]
    others = [path for path in (config.ROOT / "main").rglob("*") if path.suffix in (".html", ".css", ".js")]
    assert len(wanted) > 8 and others and packaged.issuperset([*wanted, *others])
    assert all(list(config.ROOT.glob(pattern)) for pattern in patterns if "README" not in pattern)


def test_requirement_files_exist():
    setup = PROJECT["tool"]["setuptools"]["dynamic"]
    extras = setup["optional-dependencies"]
    assert set(extras) == {"app", "baselines", "dev", "hf"}
    for entry in (setup["dependencies"], *extras.values()):
        lines = (config.ROOT / entry["file"][0]).read_text().splitlines()
        assert [line for line in lines if line and not line.startswith("#")]


def test_lazy_names_are_those_of_the_interface():
    assert sorted(ltx.__all__) == sorted(api.__all__) and set(api.__all__) <= set(dir(ltx))
    assert ltx.Explainee is api.Explainee
    with pytest.raises(AttributeError, match="module 'ltx' has no attribute 'explian'"):
        _ = ltx.explian


def test_every_command_module_has_a_main():
    for path in FILES:
        assert callable(module_of(path).main)


# A user's program: own modules with the names of ours, a package `datasets` as Hugging Face's, PyTorch Hub.
PROGRAM = """
import json, sys
import ltx
assert "torch" not in sys.modules, "import ltx waits for PyTorch"
import config, main, models, datasets
from ltx import Explainee, Explainer, explain
from ltx.datasets.digits import DigitsOnPhotos
from ltx.main.seg_classification import run_seg_cls_opt
assert (config.NAME, main.NAME, models.NAME) == ("user config", "user main", "user models")
assert datasets.load_dataset("digits") == "loaded"
explainee = Explainee.from_module(models.net(), mean=(0, 0, 0), std=(1, 1, 1), input_size=(32, 32))
import torch
hub = {"repo_or_dir": sys.argv[1], "source": "local"}
pair = [torch.hub.load(model=name, **hub) for name in ("explainer", "explainee")]
assert isinstance(pair[0], Explainer) and isinstance(pair[1], Explainee)
found = torch.hub.load(hub["repo_or_dir"], "explain", *pair, torch.rand(1, 3, 64, 64), source="local")
assert found.saliency.shape == (1, 64, 64)
assert sys.modules["datasets"] is datasets and hub["repo_or_dir"] not in sys.path
print(json.dumps({"classes": explainee(torch.rand(2, 3, 32, 32)).shape[-1], "name": ltx.__name__}))
"""
MODELS = """
import torch
NAME = "user models"
def net():
    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 4))
"""


def test_beside_a_users_own_modules_and_a_package_called_datasets(tmp_path, run_process):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "ltx").symlink_to(config.ROOT)
    work = tmp_path / "work"
    (work / "datasets").mkdir(parents=True)
    (work / "datasets" / "__init__.py").write_text("def load_dataset(name):\n    return 'loaded'\n")
    (work / "models.py").write_text(MODELS)
    for name in ("main", "config"):
        (work / f"{name}.py").write_text(f"NAME = 'user {name}'\n")
    (work / "program.py").write_text(PROGRAM)
    program = [work / "program.py", config.ROOT]
    done = run_process(*program, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "site")})
    assert done.code == 0, done.err
    assert json.loads(done.out.splitlines()[-1]) == {"classes": 4, "name": "ltx"}
