"""The Chinese pages: each stands beside an English one, types the same commands, and no relative link is broken."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from smallq_deploy.base.errors import EXIT_MEANINGS
from tests.conftest import CHECKOUT

DOCS = CHECKOUT / "docs"
CHINESE = DOCS / "zh"
SOURCES = CHECKOUT / "src_op"

_CONSOLE = re.compile(r"^```console\n(.*?)^```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
_ANCHOR = re.compile(r"\]\(([^)#\s]*)#([^)\s]+)\)")
_HAN = re.compile(r"[一-鿿]")


def pairs() -> list[tuple[Path, Path]]:
    """(English page, Chinese page) of everything that is there in Chinese."""
    found = [(DOCS / page.relative_to(CHINESE), page) for page in sorted(CHINESE.rglob("*.md"))]
    for page in sorted((*CHECKOUT.glob("*.zh-CN.md"), *SOURCES.rglob("*.zh-CN.md"))):
        found.append((page.with_name(page.name.replace(".zh-CN", "")), page))
    return found


def name(page: object) -> str:
    return str(page.relative_to(CHECKOUT)) if isinstance(page, Path) else ""


def links(page: Path) -> set[Path]:
    """Files that relative links of ``page`` lead to."""
    targets = _LINK.findall(page.read_text(encoding="utf-8"))
    return {(page.parent / target).resolve() for target in targets if "://" not in target}


def headings(page: Path) -> set[str]:
    """Anchors that GitHub makes of the headings of ``page``."""
    titles = re.findall(r"^#+ +(.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def typed(page: Path) -> list[str]:
    """What the console blocks of ``page`` have typed, without the remarks behind it."""
    blocks = _CONSOLE.findall(page.read_text(encoding="utf-8"))
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    return [re.sub(r"\s+# .*", "", line) for line in lines]


@pytest.mark.parametrize(("english", "chinese"), pairs(), ids=name)
def test_pages_name_each_other_at_their_top(english: Path, chinese: Path) -> None:
    assert _HAN.search(chinese.read_text(encoding="utf-8"))
    for page, other in ((english, chinese), (chinese, english)):
        top = page.read_text(encoding="utf-8").splitlines()[:4]
        targets = [(page.parent / target).resolve() for target in _LINK.findall("\n".join(top))]
        assert other.resolve() in targets, f"{name(page)} does not link {name(other)}"


@pytest.mark.parametrize(("english", "chinese"), pairs(), ids=name)
def test_same_commands_in_both_languages(english: Path, chinese: Path) -> None:
    assert typed(chinese) == typed(english)


def test_every_tutorial_and_how_to_is_there_in_chinese() -> None:
    wanted = [page for folder in ("tutorial", "how-to") for page in (DOCS / folder).glob("*.md")]
    assert wanted
    assert [name(page) for page in wanted if not (CHINESE / page.relative_to(DOCS)).exists()] == []


def test_chinese_tutorial_shows_the_same_screens() -> None:
    page = Path("tutorial") / "first-install.md"
    english, chinese = (_CONSOLE.findall((place / page).read_text(encoding="utf-8")) for place in (DOCS, CHINESE))
    assert english
    assert chinese == english


def test_chinese_exit_statuses_are_those_of_the_program() -> None:
    text = (CHINESE / "reference" / "exit-statuses.md").read_text(encoding="utf-8")
    rows = [(int(number), code) for number, code in re.findall(r"^\| (\d+) \| (\w+) \|", text, re.MULTILINE)]
    assert rows == [(int(status), status.name) for status in EXIT_MEANINGS]


@pytest.mark.parametrize(
    "page", sorted((*CHECKOUT.glob("*.md"), *DOCS.rglob("*.md"), *SOURCES.rglob("*.md"))), ids=name
)
def test_relative_links_lead_somewhere(page: Path) -> None:
    assert [str(target) for target in links(page) if not target.exists()] == []
    for target, anchor in _ANCHOR.findall(page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert anchor in headings(page.parent / target if target else page), f"{target}#{anchor}"


def test_chinese_readme_leads_to_every_chinese_page() -> None:
    assert set(CHINESE.rglob("*.md")) <= links(CHECKOUT / "README.zh-CN.md")
