"""The pages name what the code refers to."""

import re

from docs.numbers import ROOT, pages

CODE = ("model", "train", "export", "quantize", "runtime_bench")


def test_every_paper_that_the_code_cites_is_in_the_list():
    cited = set()
    for path in (path for room in CODE for path in (ROOT / room).rglob("*") if path.suffix in (".py", ".h", ".c", ".cpp")):
        cited |= set(re.findall(r"[A-Z]\w+ (?:et al\.|and [A-Z]\w+) \d{4}", " ".join(path.read_text().split())))
    assert len(cited) > 15
    assert sorted(cited - set(re.findall(r"^\| ([^\d\n]+ \d{4})\. ", (ROOT / "CITATION.md").read_text(), re.MULTILINE))) == []


def test_links_between_pages_lead_to_files():
    readmes = [path for depth in ("*/README.md", "*/*/README.md") for path in ROOT.glob(depth)]
    own = [path for path in readmes if path.relative_to(ROOT).parts[0] not in (".venv", "build")]
    assert len(own) > 5
    for path in [*pages(ROOT), ROOT / "CITATION.md", *own]:
        links = re.findall(r"\]\(([^)#:]+)\)", path.read_text())
        assert [link for link in links if not (path.parent / link).exists()] == [], path.name


def test_code_that_the_list_of_papers_names_is_there():
    named = re.findall(r"`([\w/.]+)`", (ROOT / "CITATION.md").read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []
