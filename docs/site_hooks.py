"""What MkDocs does beyond the pages of docs/: pages from elsewhere, the reference, checks.

The Markdown files link to each other as files of the repository, so that they read on its pages.
Here these links become those of the site. Every rule of the contract has an anchor of its own,
``contract/#MSG-3``, and where a page or a docstring names a rule, the name leads there.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree as ET

from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor
from markdown.preprocessors import Preprocessor
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

import director_db

if TYPE_CHECKING:
    from markdown import Markdown
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).parents[1]

# Where the site shows files that are not in docs/.
ELSEWHERE: Final = {
    "README.md": "index.md",
    "CONTRACT.md": "contract.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "license.md",
    "conformance/README.md": "conformance.md",
    "benchmarks/results/latest.md": "measurements.md",
    "benchmarks/results/integrations.md": "measurements-of-integrations.md",
}
SOURCES: Final = {page: name for name, page in ELSEWHERE.items()}
PICTURES: Final = "benchmarks/results/"

# The reference: what is public, by the name that one imports.
FOR_APPLICATIONS: Final = {
    "Opening and closing": ("load_db", "close_all", "DBType"),
    "The database": ("BaseDB", "UNSET", "CONTRACT_VERSION"),
    "What it returns": (
        *("Session", "Message", "Context", "DeleteResult"),
        *("Health", "Migration", "Distribution"),
    ),
    "Errors": (
        *("DirectorDBError", "ConfigurationError", "UnknownDBTypeError", "PluginError"),
        *("InvalidRecordError", "SessionNotFoundError", "SessionExistsError", "ConflictError"),
        *("BackendUnavailableError", "SchemaError", "ClosedError"),
    ),
}
FOR_BACKENDS: Final = {
    "What a backend writes": "director_db.storage",
    "What it gets and returns": "director_db.rows",
    "The plugin": "director_db.hookspecs",
    "Settings": "director_db.settings",
    "Tests": "director_db.testing",
    "Sharing commits": "director_db.queue",
}

LINK: Final = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")
FENCE: Final = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
RULE: Final = r"\b((?:SES|MSG|CTX|DEL|VAL|LIF)-\d+)\b"
RULE_HEADING: Final = re.compile(rf"^(### {RULE}: .+)$", re.MULTILINE)
RULE_ANCHOR: Final = re.compile(r"#([a-z]{3}-\d+)-[\w-]+")
LOADED: Final = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//[^"'\s>]+"""
    r"""|<link\b[^>]*\brel=["']?(?:stylesheet|preconnect|icon)[^>]*\bhref=["']?(?:https?:)?//[^"'>]+"""
    r"""|(?:@import|url\()\s*["']?(?:https?:)?//[^"')\s]+"""
)


class Reading(Extension):
    """Makes links of the rules that are named, and code of examples in docstrings."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802 - Markdown calls it so
        """Add the two patterns."""
        md.inlinePatterns.register(_RuleLink(RULE, md), "rules", 5)
        md.preprocessors.register(_Doctest(md), "doctest", 35)  # before fences are looked for


class _Doctest(Preprocessor):
    """Puts a fence around lines from a prompt to the next empty one."""

    def run(self, lines: list[str]) -> list[str]:
        """Return the lines with fences."""
        text = "\n".join([*lines, ""])
        fenced = re.sub(
            r"(?:^>>> .*\n(?:.+\n)*)+", r"```pycon\n\g<0>```\n", text, flags=re.MULTILINE
        )
        return fenced.split("\n")


class _RuleLink(InlineProcessor):
    """Leaves what autorefs resolves on any page, that of a docstring too."""

    ANCESTOR_EXCLUDES = ("a", "h1", "h2", "h3", "h4", "h5", "h6")

    def handleMatch(self, m: re.Match[str], data: str) -> tuple[ET.Element, int, int]:  # type: ignore[override]  # noqa: ARG002, N802
        """Return the link."""
        found = ET.Element("autoref", {"identifier": m[1]})
        found.text = m[1]
        return found, m.start(0), m.end(0)


def on_config(config: MkDocsConfig) -> None:
    """Add what reads Markdown."""
    config.markdown_extensions.append(Reading())  # type: ignore[arg-type]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and the pictures that are not in docs/, and the reference."""
    for name, page in ELSEWHERE.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        if name == "LICENSE":
            text = f"# License\n\n```text\n{text}```\n"
        elif page.startswith("measurements"):
            text = f"---\nhide: [toc]\n---\n{text}"  # Its tables are wide.
        files.append(File.generated(config, page, content=text))
    for picture in sorted((ROOT / PICTURES).glob("*.svg")):
        files.append(File.generated(config, picture.name, abs_src_path=str(picture)))
    for page, text in (("api.md", for_applications()), ("api-backends.md", for_backends())):
        files.append(File.generated(config, page, content=text))
    return files


def for_applications() -> str:
    """Return the page of all that `director_db` offers, a heading for each group."""
    lines = ["# Reference for applications\n", "What `director_db` offers, from its docstrings.\n"]
    left = {*director_db.__all__} - {"__version__", "BackendSpec", "hookimpl"}
    for title, names in FOR_APPLICATIONS.items():
        lines += [f"## {title}\n", *(f"::: director_db.{name}\n" for name in names)]
        left -= {*names}
    lines += ["## Coroutines\n", "::: director_db.asyncio"]
    lines += ["    options:", "      heading_level: 3"]
    if left:
        raise PluginError(f"The reference has no place for {', '.join(sorted(left))}")
    return "\n".join(lines)


def for_backends() -> str:
    """Return the page of the modules that an author of a backend meets."""
    lines = ["# Reference for backends\n"]
    lines.append("[Writing a backend](writing-a-backend.md) is the guide to what is listed here.\n")
    for title, module in FOR_BACKENDS.items():
        lines += [f"## {title}\n", f"::: {module}", "    options:", "      heading_level: 3"]
        # The names of storage operations begin with an underscore.
        lines += ['      filters: ["!^__"]', "      show_root_full_path: true", ""]
    return "\n".join(lines)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: Any) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    source = SOURCES.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    folder = posixpath.dirname(source)

    def link(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, match[1]))
        found = ELSEWHERE.get(target)
        if found is None:
            for place in ("docs/", PICTURES):
                if target.startswith(place):
                    found = target.removeprefix(place)
        # What is not on the site stays as it is, and strict mode refuses it.
        return (found or match[1]) + (match[2] or "")

    parts, end = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [LINK.sub(link, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    text = "".join([*parts, LINK.sub(link, markdown[end:])])
    if source == "CONTRACT.md":
        text = RULE_HEADING.sub(r"\1 { #\2 }", text)
        for _, rule in RULE_HEADING.findall(markdown):
            config.plugins["autorefs"].register_anchor(page, rule)
    return RULE_ANCHOR.sub(lambda match: f"#{match[1].upper()}", text)


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site that loads anything from elsewhere, or that lost a rule."""
    built = Path(config.site_dir)
    for path in [*built.rglob("*.html"), *built.rglob("*.css")]:
        if found := LOADED.search(path.read_text(encoding="utf-8")):
            raise PluginError(f"{path.relative_to(built)} loads something: {found[0]}")
    contract = (built / "contract" / "index.html").read_text(encoding="utf-8")
    rules = RULE_HEADING.findall((ROOT / "CONTRACT.md").read_text(encoding="utf-8"))
    lost = [rule for _, rule in rules if f'id="{rule}"' not in contract]
    if lost or not rules:
        raise PluginError(f"The contract has no anchors for {', '.join(lost)}")
