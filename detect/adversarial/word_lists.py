"""The word lists that ship with the attacks. All are this project's own, written by hand."""

import json
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def word_list(name: str) -> dict[str, Any]:
    """The JSON object in `words/NAME.json`; read once, so not to be changed."""
    content: dict[str, Any] = json.loads((files("detect.adversarial") / "words" / f"{name}.json").read_text("utf-8"))
    return content
