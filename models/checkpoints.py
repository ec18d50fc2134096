"""Weights on disk: safetensors with metadata for ours, `weights_only` reading of anything else."""

import hashlib
import json
import logging
import pickle
import re
import warnings
import zipfile
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ltx.config import UserError
from ltx.models.files import replace_file

log = logging.getLogger(__name__)

_ZIP = b"PK\x03\x04"
# Where a training script may keep the weights, averaged ones first, as timm reads them.
_WRAPPERS = (
    "state_dict_ema", "model_ema", "ema", "state_dict", "model_state_dict", "model", "net", "weights",
)  # fmt: skip
# Plain classes beside the weights: callbacks and hyper-parameters of Lightning 1.5, paths, NumPy's numbers.
_PLAIN_CLASSES = (
    "argparse.Namespace",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pathlib._local.PosixPath",
    "pathlib._local.WindowsPath",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "_codecs.encode",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
)


def load_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """A flat state dict from `.safetensors`, or from a `.pth` / `.pt` / `.bin` / `.ckpt` of plain tensors.

    Raises:
        UserError: the file is missing, truncated, or holds more than tensors and plain containers.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no such weights file: {path}")
    if path.suffix == ".safetensors":
        return load_safetensors(path)[0]
    state, taken = (_scripted_state(path) if _is_script(path) else load_state(path, mmap=True)), []
    while isinstance(state, dict):
        found = [key for key in _WRAPPERS if isinstance(state.get(key), dict) and state[key]]
        if not found:
            break
        if len(found) > 1:
            log.warning("%s holds %s; '%s' is taken", path, " and ".join(map(repr, found)), found[0])
        state = state[found[0]]
        taken.append(found[0])
    if taken:
        log.info("weights in %s: %s", path, ".".join(taken))
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        keys = f" (its keys: {', '.join(map(repr, list(state)[:5]))})" if isinstance(state, dict) else ""
        raise UserError(f"{path} is not a state dict: wanted a mapping of names to tensors{keys}")
    return {key.removeprefix("module."): value for key, value in state.items()}


def _is_script(path: Path) -> bool:
    """Return whether a file is a TorchScript archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # no archive, or a damaged one, of which `load_state` speaks
        return False
    return any(name.endswith("/constants.pkl") for name in names) and any("/code/" in name for name in names)


def _scripted_state(path: Path) -> dict[str, torch.Tensor]:
    """The weights of a TorchScript archive; its code is not run."""
    try:
        return dict(torch.jit.load(path, map_location="cpu").state_dict())
    except RuntimeError as error:
        raise UserError(f"cannot read {path}: {str(error).splitlines()[0][:160]}") from error


def load_safetensors(path: str | Path) -> tuple[dict[str, torch.Tensor], dict]:
    """Tensors and metadata (values decoded from JSON) of a `.safetensors` file.

    Raises:
        UserError: the file cannot be read.
    """
    with _open_safetensors(path) as file:
        return {key: file.get_tensor(key) for key in file.keys()}, _metadata(file)  # noqa: SIM118


def load_metadata(path: str | Path) -> dict:
    """The metadata alone.

    Raises:
        UserError: the file cannot be read.
    """
    with _open_safetensors(path) as file:
        return _metadata(file)


@contextmanager
def _open_safetensors(path: str | Path):
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {path}: {error}; is the file whole?") from error


def _metadata(file) -> dict:
    return {key: _decoded(value) for key, value in (file.metadata() or {}).items() if key != "format"}


def _decoded(text: str):
    """A value as we write it; as it stands where other people wrote it."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def save_safetensors(path: str | Path, tensors: dict[str, torch.Tensor], metadata: dict) -> None:
    """Write tensors and JSON-able metadata, under a temporary name first."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    text = {"format": "pt"} | {key: json.dumps(value) for key, value in metadata.items()}
    replace_file(path, lambda temporary: save_file(tensors, temporary, metadata=text))


def load_state(path: str | Path, mmap: bool = False):
    """A `.pt` / `.ckpt` of tensors and plain containers; no code from the file is run.

    The few plain classes that Lightning stores beside the weights come back as empty stand-ins.

    Args:
        path: the file.
        mmap: read tensors from disk only when they are used.

    Raises:
        UserError: the file is missing, truncated, or wants to run code.
    """
    stand_ins = [(_stand_in(name), name) for name in _PLAIN_CLASSES]
    try:
        with open(path, "rb") as file:
            is_archive = file.read(len(_ZIP)) == _ZIP
        if is_archive and not zipfile.is_zipfile(path):
            raise UserError(f"{path} is truncated: copy or download it again")
        with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and is_archive)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        if wanted is None:
            raise UserError(f"cannot read {path}: it is damaged, or no PyTorch file") from error
        raise UserError(
            f"refused {path}: it holds more than tensors and plain containers (it wants to load "
            f"'{wanted[1]}')"
        ) from error
    except UserError:
        raise
    except Exception as error:  # a damaged file may raise anything
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"cannot read {path}: {reason[:160]}; is the file whole?") from error


def _stand_in(name: str) -> type:
    """A class that takes another's place: it keeps nothing and does nothing."""

    def new(cls, *args):
        return {} if name.endswith("AttributeDict") else object.__new__(cls)

    return type(name, (), {"__new__": new, "__init__": lambda *_: None, "__setstate__": lambda *_: None})


def save_state(path: str | Path, state: dict) -> None:
    """Write resumable training state, under a temporary name first."""

    def write(temporary):
        with open(temporary, "wb") as file:  # given a path, torch.save does not say why it cannot write
            torch.save(state, file)

    replace_file(path, write)


def weights_sha256(module: torch.nn.Module) -> str:
    """SHA-256 over the names and values of a module's tensors, wherever they were loaded from."""
    return tensors_sha256(module.state_dict())


def tensors_sha256(tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 over the names and values of tensors, in their order."""
    digest = hashlib.sha256()
    for name, value in tensors.items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
