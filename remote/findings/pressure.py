"""Pressure: is the machine running out of memory, by what is available, by stalls and by swap."""

from __future__ import annotations

from remote.facts.memory import Memory
from remote.findings.base import Finding
from remote.policy import Policy
from remote.text import Percent, Size, T, Value

# Tasks wait for memory (https://docs.kernel.org/accounting/psi.html): PSI says it before MemAvailable does, as zram and swap
# hide it.
SOME_PERCENT = 10.0
FULL_PERCENT = 5.0
# A full swap alone is normal after days; it is worth a word because nothing is left to give way.
SWAP_PERCENT = 80.0


def pressure(memory: Memory, policy: Policy) -> tuple[Finding, ...]:
    """What is wrong with the memory right now, the worst first: `memory-critical` or `memory-high`, `memory-stall`,
    `swap-high`, `swap-off`."""
    found = (_use(memory, policy), _stall(memory), _swap(memory))
    return tuple(finding for finding in found if finding is not None)


def _use(memory: Memory, policy: Policy) -> Finding | None:
    used = memory.used_percent
    values: dict[str, Value] = {"used": Percent(used), "free": Size(memory.available_bytes)}
    if used >= policy.critical_percent or memory.available_bytes <= policy.critical_available_bytes:
        return Finding("memory-critical", "critical", T("Memory is nearly gone: {used} used, {free} available.", **values))
    if used >= policy.memory_percent:
        return Finding("memory-high", "warning", T("Memory is running out: {used} used, {free} available.", **values))
    return None


def _stall(memory: Memory) -> Finding | None:
    stall = memory.pressure
    if stall is None or (stall.some_avg10 < SOME_PERCENT and stall.full_avg10 < FULL_PERCENT):
        return None
    text = T(
        "Programs wait for memory: some of them {some} of the time, all of them {full}.",
        some=Percent(stall.some_avg10),
        full=Percent(stall.full_avg10),
    )
    return Finding("memory-stall", "warning", text)


def _swap(memory: Memory) -> Finding | None:
    if not memory.swap_total_bytes:
        return Finding("swap-off", "info", T("There is no swap: whatever does not fit into memory is killed at once."))
    used = 100.0 * memory.swap_used_bytes / memory.swap_total_bytes
    if used < SWAP_PERCENT:
        return None
    text = T("Swap is nearly full: {used} of {total}.", used=Percent(used), total=Size(memory.swap_total_bytes))
    return Finding("swap-high", "warning", text)
