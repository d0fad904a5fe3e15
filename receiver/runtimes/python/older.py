"""The process environment for releases whose record does not have one, because it is too old: Python, or plain files.

The launcher imports this, so it holds nothing else. It is what `Python.process` returned at that time.
"""

PROCESS_ENV = {
    "path": [".venv/bin", "node_modules/.bin"],
    "variables": [["PYTHONUNBUFFERED", "1"], ["VIRTUAL_ENV", "$SLUG/.venv"]],
    "socket": [["GUNICORN_CMD_ARGS", "--bind=unix:$SOCKET $GUNICORN_CMD_ARGS"], ["UVICORN_UDS", "$SOCKET"]],
}
