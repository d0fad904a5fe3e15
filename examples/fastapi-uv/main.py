"""A FastAPI page that says which release made it."""

import os

from fastapi import FastAPI

app = FastAPI()


@app.get("/")
def hello() -> dict[str, str]:
    return {"message": "Hello from shipit", "release": os.environ.get("SHIPIT_RELEASE", "not released")}


@app.get("/health")
def health() -> dict[str, bool]:
    return {"ok": True}
