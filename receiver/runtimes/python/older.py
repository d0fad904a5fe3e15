"""What the processes of a release find whose record was written before records said so: it was Python, or plain files.

The launcher imports this, so it holds nothing else. As `Python.process` had it at that time.
"""

PROCESS_ENV = {
    "path": [".venv/bin", "node_modules/.bin"],
    "variables": [["PYTHONUNBUFFERED", "1"], ["VIRTUAL_ENV", "$SLUG/.venv"]],
    "socket": [["GUNICORN_CMD_ARGS", "--bind=unix:$SOCKET $GUNICORN_CMD_ARGS"], ["UVICORN_UDS", "$SOCKET"]],
}
