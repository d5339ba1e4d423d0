"""Writes the finding on the README's first screen anew: `python -m tests.support.readme`."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
README = ROOT / "README.md"
BLOCK = re.compile(r"(<!-- finding:begin.*?-->\n)(.*?)(<!-- finding:end -->)", re.DOTALL)


def demo_finding() -> str:
    """The first new finding of high severity that the demo shows, as a block of code."""
    done = subprocess.run(
        [sys.executable, "-c", "from agent.cli import main; main()", "replay", "demo/ward.pcap.gz"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    start = next(i for i, line in enumerate(lines) if " HIGH " in line and " new " in line)
    stop = next(i for i in range(start + 1, len(lines)) if not lines[i].startswith("    "))
    shown = ["$ wardwatch replay demo/ward.pcap.gz", *lines[start:stop]]
    return "\n" + "".join(f"    {line}\n" for line in shown) + "\n"


def readme_block() -> str:
    """What stands in the README between its two marks."""
    found = BLOCK.search(README.read_text())
    assert found
    return found.group(2)


if __name__ == "__main__":
    README.write_text(BLOCK.sub(lambda m: m[1] + demo_finding() + m[3], README.read_text()))
