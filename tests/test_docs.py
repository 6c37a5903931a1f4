"""What the pages show is what happens.

Each page is run as one program: its Python blocks in their places, everything else blanked out, so that an error's
line number is the page's. What a block prints is shown by a comment after each `print`, or by an `output` block below.
"""

from __future__ import annotations

import doctest
import importlib
import itertools
import os
import pkgutil
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import anymap
from anymap._config import files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anymap.backends.base import Backend

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
MODULES = ["anymap", *(module.name for module in pkgutil.walk_packages(anymap.__path__, "anymap."))]
END_OF_BLOCK = 'print("\\f")'

LANGUAGES = {"python", "output", "console", "text", "toml"}


@dataclass(frozen=True)
class Block:
    language: str
    first: int
    """The number of its first line of content."""
    lines: list[str]


def blocks(page: Path) -> Iterator[Block]:
    lines = enumerate(page.read_text().splitlines(), 1)
    for number, line in lines:
        if fence := re.fullmatch(r"(\s*`{3,})(.*)", line):
            content = itertools.takewhile(fence[1].__ne__, (inner for _, inner in lines))
            yield Block(fence[2], number + 1, list(content))


def as_program(page: Path) -> str:
    lines = [""] * (page.read_text().count("\n") + 1)
    for block in blocks(page):
        if block.language == "python":
            lines[block.first - 1 : block.first + len(block.lines)] = [*block.lines, END_OF_BLOCK]
    return "\n".join(lines)


def shown_output(page: Path) -> list[list[str]]:
    """Return, for each Python block, the lines that the page says it prints."""
    shown: list[list[str]] = []
    for block in blocks(page):
        if block.language == "python":
            shown.append([match[1] for line in block.lines if (match := re.match(r"\s*print\(.*\)  # (.+)", line))])
        elif block.language == "output":
            shown[-1] = block.lines
    return shown


def run_page(page: Path, folder: Path) -> list[list[str]]:
    """Return the lines that each Python block prints."""
    script = folder / page.with_suffix(".py").name
    script.write_text(as_program(page))
    # The exception is that of pyproject.toml.
    command = [sys.executable, "-W", "error", "-W", "ignore:This process:DeprecationWarning", str(script)]
    ran = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return [printed.splitlines() for printed in ran.stdout.split("\f\n")[:-1]]


def commands() -> list[tuple[str, str]]:
    """Return each command that a page shows, with the page's name."""
    consoles = [(page.name, block) for page in PAGES for block in blocks(page) if block.language == "console"]
    return [(name, line[2:]) for name, block in consoles for line in block.lines if line.startswith("$ ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_of_a_kind_that_is_looked_after(page: Path) -> None:
    languages = {block.language for block in blocks(page)}
    assert {language for language in languages if not language.startswith("{")} <= LANGUAGES
    assert not [language for language in languages if language.startswith("{code")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_does_what_it_says(page: Path, tmp_path: Path) -> None:
    shown = shown_output(page)
    printed = run_page(page, tmp_path) if shown else []
    assert [got if want else [] for got, want in zip(printed, shown, strict=True)] == shown


@pytest.mark.parametrize("says", ["```python\nprint(1)  # {}\n```\n", "```python\nprint(1)\n```\n```output\n{}\n```\n"])
def test_a_page_that_shows_the_wrong_output_is_found(says: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(says.format(1))
    test_a_page_does_what_it_says(page, tmp_path)
    page.write_text(says.format(2))
    with pytest.raises(AssertionError):
        test_a_page_does_what_it_says(page, tmp_path)


def test_a_page_that_fails_is_found_with_its_line_number(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("words\n```python\nok = 1\n```\nwords\n```python\nboom\n```\n")
    with pytest.raises(AssertionError, match="line 7"):
        run_page(page, tmp_path)


def test_the_table_of_promises_is_what_the_traits_say() -> None:
    # If it is not: python docs/promises.py
    promises = runpy.run_path(str(ROOT / "docs" / "promises.py"))
    page = promises["PAGE"].read_text()
    assert page == promises["rewritten"](page)
    without = page.replace(promises["table"](), "")
    assert len(without) < len(page)
    assert promises["rewritten"](without) == page
    # One of the clusters in it is our own.
    anymap.shutdown()


def tables() -> list[tuple[str, str]]:
    """Return each piece of configuration that a page shows, with the name of the file that it belongs into."""
    shown = ["\n".join(block.lines) for page in PAGES for block in blocks(page) if block.language == "toml"]
    return [
        ("pyproject.toml" if "[tool.anymap" in text else "anymap.toml", text)
        for text in shown
        if "[project" not in text
    ]


@pytest.mark.parametrize(("name", "text"), tables())
def test_configuration_that_is_shown_says_something(
    name: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_text(text)
    monkeypatch.setenv("ANYMAP_CONFIG", str(tmp_path / name))
    assert files.read().layer or files.read().profiles


def test_the_library_that_is_shown_passes_its_tests_wherever_its_user_wants(backend: Backend) -> None:
    environment = {**os.environ, "ANYMAP_BACKEND": backend.name, "ANYMAP_WORKERS": "2"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", "-c", os.devnull, "."]
    folder = ROOT / "docs" / "examples"
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert "2 passed" in ran.stdout, ran.stdout


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_in_docstrings_run(module: str) -> None:
    assert doctest.testmod(importlib.import_module(module)).failed == 0


@pytest.mark.parametrize(("page", "command"), commands())
def test_a_shown_command_names_things_that_exist(page: str, command: str) -> None:
    words = [word for word in shlex.split(command, comments=True) if "=" not in word]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert not re.search(r"\bpip install( \S+)* anymap\b", command), f"{page}: PyPI's anymap is another project"
    for named in re.findall(r"(?:anypmap|\.)\[([\w,]+)\]", command):
        assert set(named.split(",")) <= set(extras)
    if words[0] == "anymap":
        subprocess.run([sys.executable, "-m", *words, "--help"], check=True, capture_output=True)
