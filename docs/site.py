"""The site's hook (mkdocs.yml): pages that lie beside docs/, and where links to code lead."""

import re
from pathlib import Path

from mkdocs.structure.files import File

CLONE = Path(__file__).parent.parent
#: Page of the site -> file beside docs/.
PAGES = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}


def on_files(files, config):
    """Add the pages that lie beside docs/."""
    for page, name in PAGES.items():
        files.append(File.generated(config, page, content=as_page((CLONE / name).read_text())))
    return files


def as_page(text):
    """A file of the clone's root, with links as from docs/."""
    text = re.sub(r"\]\((?!https?:|#|docs/)([^)]+)\)", r"](../\1)", text)
    return text.replace("](docs/", "](")


def on_page_markdown(markdown, page, config, files):
    """Links out of docs/ lead to the site's page, to the repository, or nowhere."""
    pages = {name: page for page, name in PAGES.items()}

    def link(found):
        text, target = found.groups()
        name, _, anchor = target.partition("#")
        if name in pages:
            return f"[{text}]({pages[name]}{'#' * bool(anchor)}{anchor})"
        if name.startswith("docs/") and name.endswith(".md"):
            return f"[{text}]({target.removeprefix('docs/')})"
        return f"[{text}]({config.repo_url}/blob/main/{target})" if config.repo_url else text

    return re.sub(r"\[([^\]]+)\]\(\.\./([^)]+)\)", link, markdown)
