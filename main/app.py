"""A page to click in: drop a picture, see what the model sees, ask why, refine, compare, download.

    python main/app.py
    python main/app.py --explainee-model-name resnet18 --explainee-checkpoint own.pth --class-names names.txt

It listens on this machine only (`--host` lets others in), opens no connection and writes into a temporary
folder that goes with it. Needs gradio: pip install -r requirements-app.txt
"""

from importlib.util import find_spec
from pathlib import Path
from runpy import run_path

if not __package__:  # run as a file
    run_path(str(Path(__file__).resolve().parents[1] / "__init__.py"))

from ltx.config import UserError
from ltx.main.common import cli
from ltx.main.page.options import AppOptions


@cli.script(AppOptions)
def main(options: AppOptions) -> tuple[Path | None, dict]:
    """Serve the page until Ctrl-C."""
    if find_spec("gradio") is None:
        raise UserError("the page needs the package gradio: run 'pip install -r requirements-app.txt'")
    from ltx.main.page.server import serve

    serve(options)
    return None, {}


if __name__ == "__main__":
    main()
