"""A run's pictures on one page, `index.html`, and in one table, `scores.csv`."""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ltx.datasets.classes import short_name
from ltx.main.explanation.pictures import PREVIEWS, SCORES, scores_of
from ltx.main.explanation.run import Told
from ltx.main.runs.tables import write_per_image
from ltx.models.files import replace_file

_FOLDER = Path(__file__).parent / "template"
_HEADS = ("picture", "class", "class_name", *SCORES, "warning")


def write_gallery(folder: Path, found: Sequence[Told], names: Sequence[str]) -> Path:
    """Write `index.html` and `scores.csv`; return the page, on which pictures with warnings come first.

    Args:
        folder: of the run, which holds the pictures.
        found: the pictures.
        names: name of each class.
    """
    cards = [card for told in found for card in _cards(told, names)]
    rows = [[card[head] for head in _HEADS] for card in cards]
    write_per_image(folder / "scores.csv", _HEADS, rows)
    environment = Environment(loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined)
    files = {kind: _FOLDER / f"gallery.{kind}" for kind in ("css", "js")}
    inline = {kind: Markup(path.read_text(encoding="utf-8")) for kind, path in files.items()}
    cards.sort(key=lambda card: not card["warning"])
    page = environment.get_template("gallery.html").render(title=folder.name, cards=cards, **inline)
    path = folder / "index.html"
    replace_file(path, lambda temporary: Path(temporary).write_text(page, encoding="utf-8"))
    return path


def _cards(told: Told, names: Sequence[str]) -> list[dict]:
    """One card a class: the columns of the table, and what the page links to."""
    cards = []
    for row, label in enumerate(told.unit.classes.tolist()):
        scores = scores_of(told.unit, row)
        card = {"picture": told.name, "class": label, "class_name": short_name(names[label]), **scores}
        card["warning"] = "; ".join(told.warnings[row])
        files = {"sheet": told.sheet.name, "preview": f"{PREVIEWS}/{told.start[row]}.webp"}
        cards.append(card | {name: quote(file) for name, file in files.items()})
    return cards
