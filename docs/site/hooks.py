"""What MkDocs is told beside mkdocs.yml: pages and files from elsewhere.

Pages link to files of the repository, as in `../benchmarks/results/x.json`,
which a code host shows. Within the site these files lie in `source/`.
"""

import pathlib
import posixpath
import re

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

from meta_pseudo_labels.utils.quiet import quiet_start

with quiet_start():  # TensorFlow's.
    from docs.site import settings_pages

ROOT = pathlib.Path(__file__).parents[2]

# Pages that stand outside docs/: where from, and where to.
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "tpu/README.md": "tpu.md",
}
# Pages that are made here.
MADE = {
    "reference/flags.md": settings_pages.flags_page,
    "reference/run_files.md": settings_pages.run_files_page,
}
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#:\s]+)(#[^)\s]*)?\)")


def on_files(files, config):
    """Adds the pages that are written elsewhere."""
    for source, uri in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, uri, content=text))
    for uri, make in MADE.items():
        files.append(File.generated(config, uri, content=make()))
    return files


def on_page_markdown(markdown, page, config, files):
    """Turns links to files of the repository into links within the site.

    Raises:
      PluginError: for a file that is not there.
    """
    uri = page.file.src_uri
    origins = {to: source for source, to in PAGES.items()}
    folder = posixpath.dirname(origins.get(uri, f"docs/{uri}"))

    def moved(link):
        text, target, anchor = link[1], link[2], link[3] or ""
        path = posixpath.normpath(posixpath.join(folder, target))
        if not (ROOT / path).exists():
            if path.startswith("docs/"):
                return link[0]  # A page made here; else MkDocs says so.
            raise PluginError(f"{uri} links to {target}, which is not there.")
        if (ROOT / path).is_dir():
            return text
        to = posixpath.relpath(
            _uri(path, config, files), posixpath.dirname(uri) or "."
        )
        return f"[{text}]({to}{anchor})"

    return _LINK.sub(moved, markdown)


def _uri(path, config, files):
    """Where a file of the repository is within the site; added if need be."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path in PAGES:
        return PAGES[path]
    uri = f"source/{path}"
    if files.get_file_from_path(uri) is None:
        # Bytes, so that Markdown is not made a page of.
        content = (ROOT / path).read_bytes()
        files.append(File.generated(config, uri, content=content))
    return uri
