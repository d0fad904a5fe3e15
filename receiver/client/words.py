"""Sends a command's words through ssh unchanged: ssh joins words with spaces, and a shell at the other end reads
quotes.

They travel as one word of letters without meaning to a shell: `shipit:` and base64url (RFC 4648, 5) of a JSON object.
The gateway decodes it (gate/request.py). Imports little, because every command needs this.
"""

from __future__ import annotations

import binascii

TYPE_CHECKING = False  # instead of importing typing, which takes longer than this whole module
if TYPE_CHECKING:
    from collections.abc import Sequence

PREFIX = "shipit:"


class Asked:
    """A client's request: the words as they were typed, the app they are for ("" = the words name it), and the terminal
    for the answer: its width in columns (0: none) and whether it shows colours."""

    def __init__(self, words: tuple[str, ...], app: str = "", columns: int = 0, colours: bool = False) -> None:
        self.words, self.app, self.columns, self.colours = words, app, columns, colours


def pack(asked: Asked) -> str:
    """The one word for ssh."""
    words = ", ".join(map(_quoted, asked.words))
    text = f'{{"words": [{words}], "app": {_quoted(asked.app)}, "columns": {asked.columns}, "colours": {"true" if asked.colours else "false"}}}'
    raw = binascii.b2a_base64(text.encode(), newline=False)
    return PREFIX + raw.translate(bytes.maketrans(b"+/", b"-_")).decode()


def _quoted(text: str) -> str:
    """A string as JSON. Written by hand: importing json takes longer than everything else here."""
    return '"' + "".join(c if " " <= c <= "~" and c not in '"\\' else _escaped(c) for c in text) + '"'


def _escaped(letter: str) -> str:
    code = letter.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{code[i : i + 4]}" for i in range(0, len(code), 4))


def unpack(word: str) -> Asked:
    """Decode such a word; raises ValueError for anything else."""
    import base64
    import json

    data = json.loads(base64.b64decode(word.removeprefix(PREFIX), altchars=b"-_", validate=True))
    if type(data) is not dict or set(data) != {"words", "app", "columns", "colours"}:
        raise ValueError("not what a client asks")
    words: Sequence[object] = data["words"] if type(data["words"]) is list else ()
    kinds = {"app": str, "columns": int, "colours": bool}
    if not words or not all(type(word) is str and "\0" not in word for word in words):
        raise ValueError("no words")
    if not all(type(data[name]) is kind for name, kind in kinds.items()):
        raise ValueError("a field of another type")
    return Asked(tuple(str(word) for word in words), data["app"], data["columns"], data["colours"])
