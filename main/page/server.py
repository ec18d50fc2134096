"""Start and end of the page: its temporary folder, the environment of the framework, the port."""

import contextlib
import ctypes
import errno
import os
import signal
import socket
import sys
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
_ARENA_MAX = -8  # of malloc.h: parameter of mallopt(3)
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
    port = _port(options)
    _share_freed_memory()
    stop = stop or threading.Event()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ltx-app-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        os.environ.update(
            _ENVIRONMENT, GRADIO_TEMP_DIR=str(folder), GRADIO_EXAMPLES_CACHE=str(folder / "examples")
        )
        models = Models(options)
        threading.Thread(target=_import_framework, daemon=True).start()  # while the weights are read
        models.get(models.first)
        page, address = _launch(options, port, models, folder)
        keep = set(folder.rglob("*"))  # the examples
        try:
            print(f"{address} (ready after {time.monotonic() - started:.1f} s; Ctrl-C ends it)", flush=True)
            while not stop.wait(_SWEEP):
                sweep(folder, keep)
        except KeyboardInterrupt:
            pass
        finally:
            page.close(verbose=False)


def _launch(options: AppOptions, port: int, models: Models, folder: Path):
    """The running page and its address."""
    import gradio as gr
    from gradio import processing_utils
    from starlette.middleware import Middleware

    from ltx.main.page.layout import CSS, Page

    bytes_of_body = options.max_megabytes * 1_000_000 + 100_000  # with the form around it
    hosts = (*LOCAL, options.host) if options.host in LOCAL else None
    guard = Middleware(Guard, folder=folder, max_bytes=bytes_of_body, hosts=hosts)
    processing_utils.async_ssrf_protected_download = _fetch_nothing
    page = Page(models, options, folder).build()
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    page.launch(
        server_name=options.host, server_port=port, share=False, prevent_thread_lock=True, quiet=True,
        allowed_paths=[], ssr_mode=False, mcp_server=False, enable_monitoring=False, run_history=False,
        max_file_size=options.max_megabytes * 1_000_000, state_session_capacity=_SESSIONS, footer_links=[],
        app_kwargs={"middleware": [guard]}, theme=gr.themes.Default(**fonts), css=CSS,
    )  # fmt: skip
    return page, f"http://{options.host}:{port}/"


def _import_framework() -> None:
    with contextlib.suppress(ImportError):  # told where it is needed
        import gradio  # noqa: F401


def _share_freed_memory() -> None:
    """Have glibc hand what one thread freed to the next, instead of keeping it for each by itself."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform.startswith("linux") else None
    if mallopt is not None:
        mallopt(_ARENA_MAX, 2)


async def _fetch_nothing(url: str, cache_dir: str) -> str:
    """Stands for the framework's download of an address that a visitor gives instead of a file."""
    raise ValueError("drop a file; addresses are not fetched")


def _port(options: AppOptions) -> int:
    """The port that is asked for, or for 0 one that is free; looked for before any model is loaded.

    Raises:
        UserError: it cannot be listened on.
    """
    try:
        found = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(found[0]) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(found[4])
            return probe.getsockname()[1]
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"--port {options.port}: another program listens there; choose another"
            ) from error
        raise UserError(f"--host {options.host} --port {options.port}: {error.strerror}") from error


def _check(options: AppOptions) -> None:
    """Raise `UserError` for numbers that make no sense."""
    for name in ("max_megabytes", "max_megapixels", "time_limit"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(options, name)}: must be at least 1")
    if not 0 <= options.steps <= 50:
        raise UserError(f"--steps {options.steps}: wanted 0 to 50")
    if not 0 <= options.port < 2**16:
        raise UserError(f"--port {options.port}: wanted 0 to 65535")
