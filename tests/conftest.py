"""What every test shares: `--fail-on-skip` for CI, and hypothesis' settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

NOT_RUN: Final = ("skipped", "xfailed", "xpassed")

# Machines that build are slow and shared: a deadline of milliseconds measures the neighbours.
settings.register_profile("memwarden", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("memwarden")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that CI sets."""
    parser.addoption("--fail-on-skip", action="store_true", help="a skipped or xfailed test fails the run")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Turn a green run in which something was not run into a red one."""
    if exitstatus == pytest.ExitCode.OK and not_run(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    """Say why a run with no failure is red."""
    if names := not_run(config):
        terminalreporter.section("not run, and --fail-on-skip is set", red=True)
        for name in names:
            terminalreporter.line(name)


def not_run(config: pytest.Config) -> list[str]:
    """The tests that were skipped or expected to fail, when `--fail-on-skip` asks for them."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not config.getoption("--fail-on-skip"):
        return []
    return [f"{kind}: {report.nodeid}" for kind in NOT_RUN for report in reporter.stats.get(kind, [])]
