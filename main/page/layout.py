"""The page itself, made with gradio: what is on it and what each click asks for."""

import functools
import html
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
from PIL import Image

from ltx import config
from ltx.config import UserError
from ltx.datasets.classes import short_name
from ltx.datasets.digits import DigitsOnPhotos
from ltx.main.common.figures import to_image
from ltx.main.page import answers
from ltx.main.page.models import Models
from ltx.main.page.options import AppOptions
from ltx.main.page.uploads import read_upload

_MOST_STEPS = 50
_AT_ONCE = 2  # answers that are worked on at a time; the others wait
_WORK = {"concurrency_limit": _AT_ONCE, "concurrency_id": "work"}
CSS = """
.gradio-container {max-width: 1200px !important; margin: 0 auto !important}
#said p {margin: 0; padding: .6em .8em; border-radius: 6px; background: var(--background-fill-secondary)}
#said p.wrong {border-left: 4px solid #c62828}
"""
_EXAMPLES = ("espresso.jpg", "cat.jpg")


class Page:
    """Answers of the page, for every visitor.

    Args:
        models: to choose from.
        options: of the command line.
        folder: of uploads and results.
    """

    def __init__(self, models: Models, options: AppOptions, folder: Path):
        self.models, self.options, self.folder = models, options, folder
        self._running: dict[str, threading.Event] = {}  # by visitor
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._kept = functools.lru_cache(maxsize=16)(read_upload)

    def _read(self, path: str) -> Image.Image:
        with self._reading:  # one at a time: a large picture takes much memory until it is made smaller
            return self._kept(path, self.folder, self.options.max_megabytes, self.options.max_megapixels)

    def look(self, path: str | None, model: str):
        """A picture and a model to the top classes, what is said, and the methods to compare with."""
        nothing = gr.update(choices=[], value=None), _said(""), gr.update(), *self._cleared()
        if not path:
            return nothing
        try:
            loaded = self.models.get(model)
            top = answers.top_classes(loaded, self._read(path))
            methods = answers.methods_for(loaded.explainee)
        except UserError as error:
            return nothing[0], _said(error), *nothing[2:]
        classes = gr.update(choices=[(f"{name}  {p:.1%}", c) for c, name, p in top], value=top[0][0])
        shown = gr.update(choices=methods, value=answers.usual_methods(methods))
        return classes, _said(f"Explaining {top[0][1]} ..."), shown, *self._cleared()

    def why(
        self, path: str | None, model: str, target: int | None, steps: int, request: gr.Request
    ) -> Iterator:
        """The mask of a class step by step: overlay, what is kept, what is said, and the file to download."""
        stop = self._begin(request.session_hash)
        if not path or target is None:
            yield gr.skip(), gr.skip(), gr.skip(), gr.skip()
            return
        try:
            loaded, picture, steps = (
                self.models.get(model),
                self._read(path),
                min(max(int(steps), 0), _MOST_STEPS),
            )
            said = short_name(loaded.names[target])
            for answer in answers.refine(loaded, picture, target, steps, self.options.time_limit, stop):
                if not answer.scores:
                    text = f"{said}: step {answer.step + 1} of {steps}"
                    yield *self._shown(answer), _said(text), gr.update(interactive=False)
                    continue
                packed = answers.pack(answer, said, self._new_folder())
                download = gr.update(value=str(packed), interactive=True)
                yield *self._shown(answer), _said(answer.text(said)), download
        except (UserError, IndexError, TypeError, ValueError) as error:
            yield gr.skip(), gr.skip(), _said(error), gr.update(interactive=False)

    def compare(self, path: str | None, model: str, target: int | None, methods: list[str]):
        """Other methods' maps of the same class, and what is said where that fails."""
        if not path or target is None:
            return None, _said(UserError("drop a picture first"))
        try:
            loaded = self.models.get(model)
            made = answers.compare(loaded, self._read(path), target, methods[:3])
        except UserError as error:
            return None, _said(error)
        shown = zip(made, methods, strict=False)
        return [(self._file(picture, name), name) for picture, name in shown], gr.skip()

    def stop(self, request: gr.Request) -> str:
        """End the visitor's steps."""
        self._begin(request.session_hash)
        return _said("Stopped.")

    def _begin(self, visitor: str | None) -> threading.Event:
        """A visitor's new question ends the work on the former one."""
        stop = threading.Event()
        with self._lock:
            former = self._running.pop(visitor, None)
            self._running[visitor] = stop
            while len(self._running) > 100:
                self._running.pop(next(iter(self._running)))
        if former is not None and visitor is not None:
            former.set()
        return stop

    def _new_folder(self) -> Path:
        return self.folder / "results" / secrets.token_hex(8)

    def _file(self, picture: Image.Image, name: str) -> str:
        """A picture in a file of its own: the framework would write equal ones over each other."""
        path = self._new_folder() / f"{name}.png"
        path.parent.mkdir(parents=True)
        picture.save(path, compress_level=1)
        return str(path)

    def _shown(self, answer: answers.Answer) -> tuple[str, str]:
        return self._file(answer.overlay, "overlay"), self._file(answer.kept, "kept")

    @staticmethod
    def _cleared() -> tuple:
        return None, None, gr.update(value=None, interactive=False), None

    def examples(self) -> list[list[str]]:
        """Pictures to take, each with its model."""
        shown = [
            [str(path), self.models.first]
            for name in _EXAMPLES
            if (path := config.ROOT / "images" / name).is_file()
        ]
        digits = self.folder / "digits.png"
        pixels = DigitsOnPhotos("test", 1, n_digits=2)[0]["image"]
        to_image(pixels.permute(1, 2, 0).numpy()).save(digits)
        return [*shown, [str(digits), "vit_digits"]]

    def build(self) -> gr.Blocks:
        """Lay the page out."""
        looks = {"interactive": False, "buttons": ["download", "fullscreen"]}
        with gr.Blocks(title="LTX", analytics_enabled=False) as page:
            gr.Markdown("# LTX: what does a vision model look at?")
            with gr.Row():
                with gr.Column(scale=2, min_width=300):
                    picture = gr.Image(
                        label="Picture",
                        sources=["upload", "clipboard"],
                        height=260,
                        buttons=[],
                        elem_id="picture",
                    )
                    # It stays a file, which is checked before it is decoded.
                    picture.preprocess = lambda payload: payload and payload.path
                    model = gr.Dropdown(
                        self.models.offered, value=self.models.first, allow_custom_value=True, label="Model",
                        info="an alias, or the name of a timm model whose weights are on this machine",
                    )  # fmt: skip
                    target = gr.Radio([], label="Why this class?", elem_id="classes")
                    steps = gr.Slider(0, _MOST_STEPS, self.options.steps, step=1, label="Steps")
                    stop = gr.Button("Stop", size="sm", elem_id="stop")
                    given = gr.Examples(
                        self.examples(), [picture, model], cache_examples=False, label="Examples"
                    )
                with gr.Column(scale=4, min_width=320):
                    said = gr.HTML(_said("Drop a picture, or take an example."), elem_id="said")
                    with gr.Row():
                        overlay = gr.Image(label="What counts", elem_id="overlay", **looks)
                        kept = gr.Image(label="What is kept (brightened)", elem_id="kept", **looks)
                    download = gr.DownloadButton(
                        "Download map and pictures", interactive=False, size="sm", elem_id="download"
                    )
                    methods = gr.Dropdown(
                        [], multiselect=True, max_choices=3, label="Compare with (three at most)"
                    )
                    against = gr.Button("Compare", size="sm", elem_id="compare")
                    others = gr.Gallery(
                        label="Other methods",
                        columns=3,
                        height=260,
                        object_fit="contain",
                        elem_id="others",
                        **looks,
                    )
            shown, asked = [overlay, kept, said, download], [picture, model, target, steps]
            cleared = [overlay, kept, download, others]
            how = {"trigger_mode": "multiple", "show_progress": "hidden"} | _WORK
            look = {"fn": self.look, "inputs": [picture, model], "outputs": [target, said, methods, *cleared]}
            for looking in (
                gr.on([picture.input, model.input], **look, api_name="look", **how),
                given.load_input_event.then(**look, api_name=False, **how),
            ):
                looking.then(self.why, asked, shown, api_name=False, **how)
            gr.on([target.input, steps.release], self.why, asked, shown, api_name="why", **how)
            stop.click(self.stop, None, said, queue=False, api_name="stop")
            against.click(
                self.compare, [picture, model, target, methods], [others, said], api_name="compare", **_WORK
            )
        return page.queue(max_size=32)


def _said(what: str | Exception) -> str:
    """A line for the reader; an error is marked as one."""
    kind = ' class="wrong" role="alert"' if isinstance(what, Exception) else ' role="status"'
    return f"<p{kind}>{html.escape(' '.join(str(what).split()))}</p>"
