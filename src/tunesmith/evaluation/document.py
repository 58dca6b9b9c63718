"""The frame of every page: one file that needs no network and runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from tunesmith.evaluation.charts import text


def document(title: str, body: str) -> str:
    """A whole page; `body` is markup: escape what comes from outside."""
    script = resources.files("tunesmith.evaluation").joinpath("page.js").read_text(encoding="utf-8")
    style = resources.files("tunesmith.evaluation").joinpath("page.css").read_text(encoding="utf-8")
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        f"img-src data:; script-src 'sha256-{allowed}'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{text(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        f"{body}\n</main>\n<script>{script}</script>\n</body>\n</html>\n"
    )
