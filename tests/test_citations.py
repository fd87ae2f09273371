"""Citations lead somewhere, and who reads a public docstring needs none.

Code, tests and pages cite the documents in ``docs/internals`` by number::

    contract 6.7, contract H12    what goes over the wire (several files, one numbering)
    hazard H12, H12               the same hazards without the word
    design 8.5                    why it is built so
    notes A5, rule D6, D6         what the transport has to know, and its rules
"""

import ast
import inspect
import re
import textwrap
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

import trio_dagnats
import trio_dagnats.client
import trio_dagnats.errors
import trio_dagnats.local
import trio_dagnats.testing

ROOT = Path(__file__).parent.parent
INTERNALS = ROOT / "docs" / "internals"
HOMES = {
    "contract": ("wire.md", "engine.md", "models.md", "hazards.md"),
    "design": ("decisions.md",),
    "notes": ("transport.md",),
}
"""Where the numbers of each kind of citation are."""
ITEM = r"(?:[HD]\d+|\d+(?:\.\d+)*|[A-E]\d?)\b"
BY_WORD = re.compile(
    rf"\b(contract|design|notes|rules?|hazards?)\s+(?:sections?\s+)?"
    rf"({ITEM}(?:(?:,|,? and|,? or| to)\s+{ITEM})*)"
)
BARE = re.compile(r"\b[HD]\d{1,2}\b")
NUMBER_ALONE = re.compile(r"(?<=\s)\(\d{1,2}\.\d{1,2}\)")
"""A section whose document is not said."""
TARGET = re.compile(r'^#{2,4} (\d+(?:\.\d+)*|[A-E]\d?)\.? |<a id="([hd]\d+)">', re.MULTILINE)
LINK = re.compile(r"\]\((?!https?://|mailto:)([^)#\s]*)#?([^)\s]*)\)")
SOURCES = sorted(
    path
    for folder in ("trio_dagnats", "tests", "examples", "benchmarks", "docs")
    for path in (ROOT / folder).rglob("*.*")
    if path.suffix in {".py", ".md", ".tmpl"} and path != Path(__file__)
)
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("tests/**/*.md")])


def targets(kind: str) -> list[str]:
    """Return all that can be cited of a kind, as citations have it."""
    texts = [path.read_text() for n in HOMES[kind] if (path := INTERNALS / n).exists()]
    found = (match for text in texts for match in TARGET.finditer(text))
    return [match[1] or match[2].upper() for match in found]


def cited(text: str) -> Iterator[tuple[str, str]]:
    """Yield what a text cites: the kind, and the number."""
    flowing = re.sub(r"\s*\n\s*(#\s|\")?\s*", " ", text)
    for word, items in BY_WORD.findall(flowing):
        for item in re.findall(ITEM, items):
            yield kind_of(word, item), item
    for item in BARE.findall(flowing):
        yield kind_of("", item), item


def kind_of(word: str, item: str) -> str:
    """Say in which documents a number is looked for."""
    if re.fullmatch(r"H\d+", item):
        return "contract"
    if re.fullmatch(r"D\d+", item):
        return "notes"
    return word if word in HOMES else "contract"


CITABLE = {kind: set(targets(kind)) for kind in HOMES}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_citation_leads_somewhere(path: Path) -> None:
    text = path.read_text()
    lost = {f"{kind} {item}" for kind, item in cited(text) if item not in CITABLE[kind]}

    assert not lost
    assert not (path.suffix == ".py" and NUMBER_ALONE.findall(text))


@pytest.mark.parametrize("kind", HOMES)
def test_a_number_is_given_once(kind: str) -> None:
    assert not [number for number, times in Counter(targets(kind)).items() if times > 1]


def test_all_hazards_and_rules_can_be_cited() -> None:
    assert {f"H{number}" for number in range(1, 40)} <= CITABLE["contract"]
    assert {f"D{number}" for number in range(1, 16)} <= CITABLE["notes"]


def anchors(page: Path) -> set[str]:
    """Return the fragments of a page: its headings as GitHub names them, and its own anchors."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)">', text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_their_fragments_lead_somewhere(page: Path) -> None:
    lost = []
    for path, fragment in LINK.findall(page.read_text()):
        goal = page.parent / path if path else page
        if not goal.exists() or (fragment and fragment not in anchors(goal)):
            lost.append(f"{path}#{fragment}")

    assert not lost


def said_in(found: type) -> Iterator[tuple[str, str]]:
    """Yield the docstrings of a class: its own, its public members', its attributes'."""
    for base in found.__mro__:
        if not base.__module__.startswith("trio_dagnats"):
            continue
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(node, ast.ClassDef)
        for part in node.body:
            if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
                if not re.match(r"_(?!_)", part.name):
                    yield f"{found.__name__}.{part.name}", ast.get_docstring(part) or ""
            elif isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant):
                yield f"{found.__name__}, line {part.lineno}", str(part.value.value)


PUBLIC = {
    name: getattr(package, name)
    for package in (
        trio_dagnats,
        trio_dagnats.client,
        trio_dagnats.errors,
        trio_dagnats.local,
        trio_dagnats.testing,
    )
    for name in package.__all__
}


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_a_public_docstring_says_the_thing_itself(name: str) -> None:
    found = PUBLIC[name]
    said = said_in(found) if isinstance(found, type) else [(name, found.__doc__ or "")]

    cites = {
        where: list(chain(cited(text), re.findall(r"\bcontract\b", text))) for where, text in said
    }

    assert not {where: what for where, what in cites.items() if what}
