"""Start and end of the page: its temporary folder, the environment of the framework, the port."""

import os
import signal
import socket
import tempfile
import threading
import time
from pathlib import Path

from ltx.config import UserError
from ltx.main.page.guard import LOCAL, Guard
from ltx.main.page.models import Models
from ltx.main.page.options import AppOptions
from ltx.main.page.uploads import sweep

_SWEEP = 60  # seconds
_SESSIONS = 200  # whose choices are remembered
_ENVIRONMENT = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_SHARE": "False",
    "GRADIO_MCP_SERVER": "False",
    "GRADIO_SSR_MODE": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "NO_PROXY": "127.0.0.1,localhost",
}


def serve(options: AppOptions, stop: threading.Event | None = None) -> None:
    """Serve the page until `stop` is set, or Ctrl-C or SIGTERM.

    Raises:
        UserError: a flag that makes no sense, a port that is taken, or a model that cannot be loaded.
    """
    _check(options)
    stop = stop or threading.Event()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ltx-app-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        os.environ.update(_ENVIRONMENT, GRADIO_TEMP_DIR=str(folder), GRADIO_EXAMPLES_CACHE=str(folder / "examples"))
        models = Models(options)
        models.get(models.first)
        page, address = _launch(options, models, folder)
        keep = set(folder.rglob("*"))  # the examples
        try:
            print(f"{address} (ready after {time.monotonic() - started:.1f} s; Ctrl-C ends it)", flush=True)
            while not stop.wait(_SWEEP):
                sweep(folder, keep)
        except KeyboardInterrupt:
            pass
        finally:
            page.close(verbose=False)


def _launch(options: AppOptions, models: Models, folder: Path):
    """The running page and its address."""
    import gradio as gr
    from starlette.middleware import Middleware

    from ltx.main.page.layout import CSS, Page

    port, bytes_of_body = options.port or _free_port(options.host), options.max_megabytes * 1_000_000 + 100_000
    hosts = (*LOCAL, options.host) if options.host in LOCAL else None
    guard = Middleware(Guard, folder=folder, max_bytes=bytes_of_body, hosts=hosts)
    page = Page(models, options, folder).build()
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    try:
        page.launch(
            server_name=options.host, server_port=port, share=False, prevent_thread_lock=True, quiet=True,
            ssr_mode=False, mcp_server=False, enable_monitoring=False, run_history=False, footer_links=[],
            max_file_size=options.max_megabytes * 1_000_000, state_session_capacity=_SESSIONS,
            app_kwargs={"middleware": [guard]}, theme=gr.themes.Default(**fonts), css=CSS,
        )  # fmt: skip
    except OSError as error:
        raise UserError(f"--port {port}: cannot listen on {options.host}:{port}; choose another") from error
    return page, f"http://{options.host}:{port}/"


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        try:
            probe.bind((host, 0))
        except OSError as error:
            raise UserError(f"--host {host}: this machine has no such address") from error
        return probe.getsockname()[1]


def _check(options: AppOptions) -> None:
    """Raise `UserError` for numbers that make no sense."""
    for name in ("max_megabytes", "max_megapixels", "time_limit"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(options, name)}: must be at least 1")
    if not 0 <= options.steps <= 50:
        raise UserError(f"--steps {options.steps}: wanted 0 to 50")
    if not 0 <= options.port < 2**16:
        raise UserError(f"--port {options.port}: wanted 0 to 65535")
