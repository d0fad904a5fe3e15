"""Files of a tree that shipit does not use. The push names each, so that nobody expects it to have an effect."""

from __future__ import annotations

from collections.abc import Collection

from receiver.manifest import Tree

# A file at the top, by the runtime that would take it → what the app is.
LANGUAGES = {
    "rust": ("Cargo.toml", "a Rust app"),
    "java": ("pom.xml", "a Java app"),
    "gradle": ("build.gradle", "an app that Gradle builds"),
    "elixir": ("mix.exs", "an Elixir app"),
    "deno": ("deno.json", "a Deno app"),
    "dotnet": ("global.json", "a .NET app"),
}
# Directories of a project that are not the app.
ASIDE = ("docs", "doc", "tests", "test", "examples", "example", "scripts", "tools", "benchmarks", "deploy", "ci")
# Files of other receivers, and how to do the same here.
OTHERS = {
    ".buildpacks": "buildpacks are not used here; what an app is of is found in its files.",
    "nginx.conf.sigil": "the proxy has one template for all apps; it is not read.",
    "DOKKU_SCALE": "it is not read; in shipit.yml:  processes: {web: {count: 2}}",
    "fly.toml": "it is not read.", "render.yaml": "it is not read.", "railway.json": "it is not read.",
}  # fmt: skip


def language(tree: Tree, known: Collection[str]) -> tuple[str, str]:
    """The file and its language, if that has no runtime here; "" and "" otherwise."""
    files = tree.files()
    for name, (file, what) in LANGUAGES.items():
        if name not in known and file in files:
            return file, what
    return "", ""


def dockerfile(tree: Tree, found: Collection[str]) -> list[str]:
    """A line about an unused Dockerfile: what is built instead, and how to have the Dockerfile built."""
    files = tree.files()
    name = next((name for name in ("Dockerfile", "Containerfile") if name in files), "")
    if not name or {"dockerfile", "image"} & set(found):
        return []
    instead = " and ".join(one for one in found if one not in ("files", "static")) or "what was pushed"
    return [
        f"{name}: not used, because the app runs without a container (as {instead}). To build and run that image instead, "
        f"in shipit.yml:  build: {{dockerfile: {name}}}"
    ]


def notices(tree: Tree) -> list[str]:
    """A line for each file of another receiver."""
    files = tree.files()
    return [f"{name}: {told}" for name, told in OTHERS.items() if name in files]
