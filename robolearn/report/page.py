"""The HTML file around the sections of a report; it opens without a network and runs no script but its own."""

import base64
import hashlib
from collections.abc import Iterable
from html import escape
from importlib.resources import files
from pathlib import Path

__all__ = ["write_page"]

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>{style}</style>
</head>
<body><main>
<header><h1>{title}</h1><p class="soft">{subtitle}</p></header>
{body}
</main>{script}</body>
</html>
"""


def write_page(path: Path, title: str, subtitle: str, sections: Iterable[str], script: str = "") -> Path:
    """Write the page of `sections` (HTML; empty ones are left out) and return its path; other texts are escaped."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; media-src data:"
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy += f"; script-src 'sha256-{digest}'"
    page = _PAGE.format(
        policy=policy,
        title=escape(title),
        subtitle=escape(subtitle),
        style=files(__package__).joinpath("style.css").read_text(),
        body="\n".join(section for section in sections if section),
        script=f"\n<script>{script}</script>\n" if script else "",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path
