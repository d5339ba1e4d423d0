"""What every test shares: where the public captures are, who is root, and that CI tolerates no silent skip."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("WARDWATCH_SHARED", ROOT.parent / "shared"))
SKIPS = ROOT / "tests" / "skips.txt"


def allowed_skips() -> list[str]:
    """Reasons for which a test may be skipped in CI: one a line, `#` starts a comment."""
    lines = (line.split("#", 1)[0].strip() for line in SKIPS.read_text().splitlines())
    return [line for line in lines if line]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """In CI a skip whose reason does not stand in skips.txt is a failure."""
    report = yield
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        if not any(reason.startswith(known) for known in allowed_skips()):
            report.outcome = "failed"
            report.longrepr = f"skipped in CI for a reason not in tests/skips.txt: {reason}"
    return report


def pytest_collection_modifyitems(items):
    """Tests marked `root` are skipped for others; `slow` ones run only when asked for by `-m slow`."""
    skip_root = pytest.mark.skip(reason="needs root: network namespaces, raw sockets")
    for item in items:
        if item.get_closest_marker("root") and os.geteuid() != 0:
            item.add_marker(skip_root)


@pytest.fixture(scope="session")
def captures() -> Path:
    """The public captures beside the project; never copied into it."""
    path = SHARED / "data" / "captures"
    if not path.is_dir():
        pytest.skip("the public captures are not beside the checkout")
    return path


@pytest.fixture(scope="session")
def demo_capture() -> Path:
    """The recorded ward that `make demo` replays."""
    return ROOT / "demo" / "ward.pcap.gz"


@pytest.fixture
def wardwatch(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Run a command line; its exit status, stdout and stderr."""
    from agent.cli import main

    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return int(caught.value.code or 0), out, err

    return run
