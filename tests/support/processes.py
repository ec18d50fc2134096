"""Scripts in real processes that start at once: forked from a server that has imported everything already.

    run = Run(tmp_path, "ltx", argv, patch=first_then_wait)   # starts it
    result = run.wait()

`patch` is a function of a module that a test imports; it is called in the process before the script. What
depends on how Python starts needs `start_process`, which takes seconds to import PyTorch.
"""

import functools
import logging
import multiprocessing
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import sklearn.datasets  # takes longer than a script
import torch
from timm.layers import set_fused_attn

from ltx import config
from ltx.main.baselines import baseline_run, run_baselines
from ltx.main.baselines.options import BaselineOptions
from ltx.main.common import cli, figures
from ltx.main.perturbation_eval import evaluator, run_perturbation_eval
from ltx.main.perturbation_eval.options import PerturbationOptions
from ltx.main.seg_classification import ltx_run, pretrain_run, run_seg_cls, run_seg_cls_opt
from ltx.main.seg_classification.options import FinetuneOptions, PretrainOptions
from ltx.tests.conftest import TINY, ScriptResult

SCRIPTS = {
    "pretraining": (PretrainOptions, run_seg_cls.main),
    "ltx": (FinetuneOptions, run_seg_cls_opt.main),
    "baselines": (BaselineOptions, run_baselines.main),
    "evaluation": (PerturbationOptions, run_perturbation_eval.main),
}
# The scripts import these within `main`; the server has them then.
IMPORTED = (baseline_run, evaluator, ltx_run, pretrain_run, sklearn.datasets)

# Other processes import what they unpickle from the path: the package, and the tests under pytest's names.
_PACKAGES = tempfile.TemporaryDirectory(prefix="ltx-packages-")
for _name, _folder in (("ltx", config.ROOT), ("tests", config.ROOT / "tests")):
    (Path(_PACKAGES.name) / _name).symlink_to(_folder)
sys.path.append(_PACKAGES.name)

SERVER = multiprocessing.get_context("forkserver")
# It starts in the root: the first makes that the package, the second imports what the scripts need.
SERVER.set_forkserver_preload(["tests.conftest", "ltx.tests.support.processes"])


class Run:
    """A script that runs in a process of its own, from its start on.

    Args:
        folder: for its output.
        script: one of `SCRIPTS`.
        argv: its command line.
        patch: called in the process before the script.
        env: variables of its environment besides this process's own.
    """

    def __init__(
        self,
        folder: Path,
        script: str,
        argv: list,
        patch: Callable[[], object] | None = None,
        env: dict[str, str] | None = None,
    ):
        number = len(list(folder.glob("*.out")))
        self._out, self._err = folder / f"{number}.out", folder / f"{number}.err"
        self._out.touch()
        arguments = (script, [str(part) for part in argv], self._out, self._err, patch, env or {})
        self.process = SERVER.Process(target=_work, args=arguments)
        self.process.start()

    def wait(self, seconds: float = 300) -> ScriptResult:
        """Its exit code and output, at its end."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        return ScriptResult(self.process.exitcode, self._out.read_text(), self._err.read_text())


def _work(script: str, argv: list[str], out: Path, err: Path, patch, env: dict[str, str]) -> None:
    os.environ.update(env)
    for stream, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    logging.getLogger().handlers.clear()
    multiprocessing.set_start_method("fork", force=True)  # or the script's own processes would not be patched
    torch.set_num_threads(1)
    set_fused_attn(False)
    config.ALIASES["tiny"] = TINY
    figures._save = _save_empty
    options_class, main = SCRIPTS[script]
    code = 0
    try:
        if patch is not None:
            patch()
        cli.run_script(options_class, main, argv)
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _save_empty(figure, path) -> None:
    """Pictures are written empty: drawing them would take most of a test's time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


def both(*patches: Callable[[], object]) -> Callable[[], object]:
    """Patches one after the other."""
    return functools.partial(_all, patches)


def _all(patches) -> None:
    for patch in patches:
        patch()
