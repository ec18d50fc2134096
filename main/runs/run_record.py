"""Contents of run.json, summary.json and options.json, typed, and the check of what is read from them."""

from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, NotRequired, Self, TypedDict, get_args, get_origin, get_type_hints, is_typeddict

from ltx.config import UserError


class ImagesRecord(TypedDict):
    """The source of a run's images, for `datasets.build.rebuild`."""

    kind: str
    root: NotRequired[str | None]
    labels: NotRequired[str | None]
    split: NotRequired[str | None]
    names: NotRequired[list[str]]


class ModelRecord(TypedDict):
    """The explained model, for `build_models.explainee_of_run`."""

    name: str
    checkpoint: NotRequired[str | None]
    sha256: str
    input: NotRequired[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """run.json of any run; `record[key]` and `record.get(key)` also give keys that are not fields."""

    hash: str
    identity: dict[str, Any]
    options: dict[str, Any]
    command: list[str] = field(default_factory=lambda: ["(not recorded)"])
    versions: dict[str, str] = field(default_factory=dict)
    created: str = "unknown"
    content: dict = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path, content: Any) -> Self:
        """Return the record of a file's content, unknown keys kept in `content`.

        Raises:
            UserError: a field is missing or of another type.
        """
        check(path, content, cls)
        known = {one.name: content[one.name] for one in fields(cls) if one.name in content}
        return cls(**known | {"content": content})

    def __getitem__(self, key: str) -> Any:
        return self.content[key]

    def __contains__(self, key: str) -> bool:
        return key in self.content

    def get(self, key: str, default: Any = None) -> Any:
        """Value of a key of run.json."""
        return self.content.get(key, default)

    @property
    def explained_class(self) -> str:
        """`target` where the maps explain the true class, else `predicted`."""
        return "target" if self.options.get("train_model_by_target_gt_class") else "predicted"

    @property
    def early_stop(self) -> bool:
        """True if LTX stopped early, as released."""
        return bool(self.options.get("early_stop"))


@dataclass(frozen=True, kw_only=True)
class MaskRunRecord(RunRecord):
    """run.json of a run that makes masks.

    Attributes:
        candidates: number of maps that each variant was chosen from.
        unit_size: images per mask file.
    """

    dataset: ImagesRecord
    explainee: ModelRecord
    score_class: str
    n_images: int
    input_size: list[int]
    unit_size: int | None = None
    candidates: dict[str, int] = field(default_factory=dict)
    explainer: dict[str, Any] | None = None
    method: str = "unknown"
    methods: dict[str, Any] = field(default_factory=dict)


class Figure(TypedDict):
    """One figure of summary.json: the mean over the n images that count, None where none does."""

    mean: float | None
    n: int
    higher_is_better: bool | None


Settings = TypedDict(
    "Settings", {"fill": NotRequired[str], "class": NotRequired[str], "score_class": NotRequired[str]}
)


class SummaryRecord(TypedDict):
    """summary.json: figures, and of perturbation mean curves, by variant and metric."""

    protocol: str
    settings: Settings
    run_hash: str
    rows: dict[str, dict[str, Figure]]
    curves: NotRequired[dict[str, dict[str, list[float]]]]
    axes: NotRequired[dict[str, list[float]]]


class EvaluationRecord(TypedDict):
    """options.json of an evaluation."""

    run_hash: str
    options: dict[str, Any]


def check(path: Path, value: Any, kind: Any, again: str = "", where: str = "") -> None:
    """Check a value of a JSON file against a dataclass, a TypedDict or a type; further keys are allowed.

    Args:
        path: the file, for the message.
        value: what was read.
        kind: the type.
        again: what to do, for the message.
        where: keys that led to `value`.

    Raises:
        UserError: a key is missing, or a value is of another type.
    """
    record, arguments = is_dataclass(kind) or is_typeddict(kind), get_args(kind)
    _check_type(path, value, dict if record else kind, where, again)
    if record:
        for name in sorted(required(kind) - value.keys()):
            within = f" in '{where}'" if where else ""
            raise UserError(f"{path} has no '{name}'{within}{again and f'; {again}'}")
        kinds: dict[Any, Any] = {name: hint for name, hint in get_type_hints(kind).items() if name in value}
    elif isinstance(value, dict | list) and get_origin(kind) in (dict, list):
        keys: Any = value if isinstance(value, dict) else range(len(value))
        kinds = dict.fromkeys(keys, arguments[-1])
    else:
        kinds = {}
    for key, inner in kinds.items():
        check(path, value[key], inner, again, f"{where}.{key}".lstrip("."))


def required(kind: Any) -> set[str]:
    """Return the keys that a dataclass or TypedDict cannot do without."""
    if is_typeddict(kind):
        return set(kind.__required_keys__)
    return {one.name for one in fields(kind) if one.default is one.default_factory is MISSING}


def _check_type(path: Path, value: Any, kind: Any, where: str, again: str) -> None:
    kinds = [kind] if get_origin(kind) in (dict, list) else get_args(kind) or [kind]
    kinds = tuple(get_origin(one) or (object if one is Any else one) for one in kinds)
    kinds += (int,) if float in kinds else ()
    # True is an int to Python, and NaN a number.
    fits = bool in kinds or object in kinds if isinstance(value, bool) else isinstance(value, kinds)
    if not fits or value != value:
        at = f"'{where}'" if where else "it"
        raise UserError(f"{path} is damaged: {at} is {value!r:.60}{again and f'; {again}'}")
