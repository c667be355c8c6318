"""The page's server: uvicorn in a thread, until it is told to stop; the page may load nothing from elsewhere."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

MOST_BYTES = 64 * 2**20
"""Of an uploaded file."""

# Gradio's page names fonts and scripts of other hosts; a browser that is told this does not ask for them.
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; form-action 'self'; frame-ancestors 'self'; base-uri 'self'"
)
_STOP_SECONDS = 2


@contextmanager
def serving(blocks: Any, listener: socket.socket) -> Iterator[None]:
    """Serves a page of Gradio's in the block, at a socket that listens already."""
    import fastapi
    import gradio as gr
    import uvicorn

    from tfcq.playground.page import STYLE

    _take_uploads_alone(blocks)
    host, port = listener.getsockname()[:2]
    app = gr.mount_gradio_app(
        fastapi.FastAPI(openapi_url=None),
        blocks,
        "",
        server_name=host,
        server_port=port,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=MOST_BYTES,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        css=STYLE,
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
    )
    config = uvicorn.Config(
        _WithPolicy(app), log_level="warning", access_log=False, timeout_graceful_shutdown=_STOP_SECONDS, lifespan="on"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), name="tfcq-demo", daemon=True)
    thread.start()
    try:
        while not server.started:
            thread.join(0.05)
            if not thread.is_alive():
                raise RuntimeError("the page's server did not start")
        yield
    finally:
        server.should_exit = True
        thread.join(2 * _STOP_SECONDS)


def _take_uploads_alone(blocks):
    """Makes requests that name a file of this machine, or an address to fetch one from, errors."""
    blocks.has_launched = True  # only then does Gradio 6.31 look whether a file was uploaded; mounting a page does not say so

    def refusing(move):
        async def moved(path):
            if str(path).lower().startswith(("http:", "https:")):
                raise ValueError(f"{path}: expected an uploaded file, received an address")
            return await move(path)

        return moved

    for block in blocks.blocks.values():
        block.async_move_resource_to_block_cache = refusing(block.async_move_resource_to_block_cache)


class _WithPolicy:
    """An ASGI application whose answers carry the policy."""

    def __init__(self, app):
        self._app = app

    async def __call__(self, scope, receive, send):
        async def sending(message):
            if message["type"] == "http.response.start":
                headers = [(b"content-security-policy", _POLICY.encode()), (b"referrer-policy", b"no-referrer")]
                message = message | {"headers": [*message.get("headers", ()), *headers]}
            await send(message)

        await self._app(scope, receive, sending)
