"""ASGI middleware that guards the page against requests from elsewhere.

The web framework can do much that this page has no use for, fetching addresses for a visitor among it. So
only the paths that the page needs are open, requests of other sites are refused, and bodies have a limit.
"""

from pathlib import Path
from urllib.parse import urlsplit

LOCAL = ("127.0.0.1", "localhost", "::1")
_FILE = "/gradio_api/file="
_OPEN = ("/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt")
_CALLS = (
    "app_id", "call/", "cancel", "heartbeat/", "info", "queue/data", "queue/join", "reset", "startup-events",
    "theme.css", "upload",
)  # fmt: skip
_OPEN_BELOW = ("/static/", "/assets/", "/svelte/", _FILE, *(f"/gradio_api/{name}" for name in _CALLS))
_HEADERS = {
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class Guard:
    """Refuse what the page does not need.

    Args:
        app: the ASGI application behind.
        folder: the only one that files are served from.
        max_bytes: of a request's body.
        hosts: names that a request may be addressed to; None for any.
    """

    def __init__(self, app, folder: Path, max_bytes: int, hosts: tuple[str, ...] | None):
        self.app, self.folder, self.max_bytes, self.hosts = app, Path(folder).resolve(), max_bytes, hosts

    async def __call__(self, scope, receive, send) -> None:
        """Answer a refused request itself, hand others on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        refused = self.refusal(scope)
        if refused is None:
            await self.app(scope, receive, _with_headers(send))
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        status, text = refused
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": text.encode()})

    def refusal(self, scope) -> tuple[int, str] | None:
        """Status and reason of a request that is refused, None for one that may pass."""
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        if self.hosts is not None and urlsplit(f"//{host}").hostname not in self.hosts:
            return 403, "this page answers to its own address only"
        if origin is not None and urlsplit(origin).netloc != host:
            return 403, "requests of other sites are refused"
        path = scope["path"]
        if scope["type"] != "http" or not (path in _OPEN or path.startswith(_OPEN_BELOW)):
            return 404, "there is nothing here"
        if path.startswith(_FILE) and not self._is_ours(path.removeprefix(_FILE)):
            return 404, "no such file"
        if scope["method"] not in ("GET", "HEAD", "POST", "OPTIONS"):
            return 405, "only GET, HEAD and POST"
        if scope["method"] == "POST":
            length = headers.get(b"content-length", "")
            if not length.isdecimal():
                return 411, "the length of the request is missing"
            if int(length) > self.max_bytes:
                return 413, f"more than {self.max_bytes // 1_000_000} MB; make the file smaller first"
        return None

    def _is_ours(self, name: str) -> bool:
        try:
            path = Path(name).resolve()
            return Path(name).is_absolute() and path.is_relative_to(self.folder) and path.is_file()
        except (OSError, ValueError):
            return False


def _with_headers(send):
    async def add(message) -> None:
        if message["type"] == "http.response.start":
            extra = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
            message = message | {"headers": [*message["headers"], *extra]}
        await send(message)

    return add
