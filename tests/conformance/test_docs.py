"""Docs are true: links lead somewhere, decisions are listed, commands named, and the README shows a real finding."""

import re
import subprocess

import pytest

from agent.cli import cli
from tests.conftest import ROOT
from tests.support.readme import demo_finding, readme_block

TRACKED = subprocess.run(
    ["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=False
).stdout.split("\n")
PAGES = [name for name in TRACKED if name.endswith(".md")]
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
README = ROOT / "README.md"


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_lead_somewhere(page):
    folder = (ROOT / page).parent
    broken = [
        link for link in LINK.findall((ROOT / page).read_text()) if not (folder / link).exists()
    ]
    assert not broken


def test_every_decision_stands_in_the_list():
    listed = (ROOT / "docs" / "decisions" / "README.md").read_text()
    for record in (ROOT / "docs" / "decisions").glob("[0-9]*.md"):
        assert f"({record.name})" in listed
        assert record.read_text().startswith(f"# {record.name[:4]}: ")


def test_every_command_stands_in_the_readme():
    text = README.read_text()
    for name in cli.commands:
        assert f"`wardwatch {name}" in text


def test_the_finding_in_the_readme_is_what_the_demo_shows():
    assert readme_block() == demo_finding()
