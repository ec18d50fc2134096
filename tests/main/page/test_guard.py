"""What lets requests through: only what the page needs, of its own address, within limits."""

import asyncio

import pytest

from ltx.main.page.guard import LOCAL, Guard


def ask(guard, method="GET", path="/", host="127.0.0.1:7860", **headers):
    """Status that a request is answered with, and what went on to the application."""
    passed, sent = [], []

    async def app(scope, receive, send):
        passed.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        sent.append(message)

    guard.app = app
    fields = {"host": host} | {name.replace("_", "-"): value for name, value in headers.items()}
    scope = {"type": "http", "method": method, "path": path}
    scope["headers"] = [(name.encode(), value.encode()) for name, value in fields.items()]
    asyncio.run(guard(scope, None, send))
    return sent[0]["status"], dict(sent[0]["headers"]), passed


@pytest.fixture
def guard(tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "a b.png").write_bytes(b"")
    (tmp_path / "secret.png").write_bytes(b"")
    (tmp_path / "open" / "link.png").symlink_to(tmp_path / "secret.png")
    return Guard(None, tmp_path / "open", 1000, LOCAL)


@pytest.mark.parametrize(
    "path", ["/", "/config", "/assets/index.js", "/gradio_api/queue/data", "/gradio_api/upload"]
)
def test_what_the_page_needs_passes_and_may_load_nothing_from_elsewhere(path, guard):
    status, headers, passed = ask(guard, path=path)
    assert status == 200 and passed == [path]
    assert b"default-src 'self'" in headers[b"content-security-policy"]


@pytest.mark.parametrize(
    "path",
    ["/monitoring", "/gradio_api/proxy=http://a.b/", "/gradio_api/vibe-code", "/gradio_api/deep_link",
     "/login", "/docs", "/gradio_api/process_recording", "/gradio_api/stream/1", "/gradio_api/run/look"],
)  # fmt: skip
def test_the_rest_is_shut(path, guard):
    status, _, passed = ask(guard, path=path)
    assert status == 404 and passed == []


def test_files_of_the_folder_alone_are_served(guard):
    folder = guard.folder
    assert ask(guard, path=f"/gradio_api/file={folder}/a b.png")[0] == 200
    names = ["../secret.png", "link.png", "", "none.png", "a\0.png", "x/../../secret.png", "a" * 5000]
    paths = [f"{folder}/{name}" for name in names]
    paths += [
        f"{folder.parent}/secret.png",
        "/etc/passwd",
        "open/a b.png",
        "http://127.0.0.1/x",
        "https://a.b/c.png",
    ]
    for path in paths:
        assert ask(guard, path=f"/gradio_api/file={path}")[::2] == (404, []), path


@pytest.mark.parametrize(
    ("host", "headers", "status"),
    [
        ("localhost:7860", {}, 200),
        ("[::1]:7860", {}, 200),
        ("evil.example", {}, 403),  # a name that its owner lets point here
        ("127.0.0.1.evil.example", {}, 403),
        ("127.0.0.1:7860", {"origin": "http://127.0.0.1:7860"}, 200),
        ("127.0.0.1:7860", {"origin": "http://evil.example"}, 403),
        ("127.0.0.1:7860", {"origin": "null"}, 403),
        ("", {}, 403),
    ],
)
def test_other_sites_are_refused(host, headers, status, guard):
    assert ask(guard, host=host, **headers)[0] == status


def test_any_name_may_be_used_where_others_are_let_in(guard, tmp_path):
    assert ask(Guard(None, tmp_path, 1000, None), host="machine.example")[0] == 200


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [("POST", {"content_length": "1000"}, 200), ("POST", {"content_length": "1001"}, 413), ("POST", {}, 411),
     ("POST", {"content_length": "-1"}, 411), ("DELETE", {}, 405), ("PUT", {"content_length": "1"}, 405)],
)  # fmt: skip
def test_bodies_have_a_limit(method, headers, status, guard):
    assert ask(guard, method, "/gradio_api/upload", **headers)[0] == status


def test_no_socket_of_another_kind(guard):
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "websocket", "path": "/", "headers": [(b"host", b"localhost")]}
    asyncio.run(guard(scope, None, send))
    assert sent == [{"type": "websocket.close"}]
