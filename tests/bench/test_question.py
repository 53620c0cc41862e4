"""What one warm question costs: network round trips, time and CPU, beside the ways one would ask without memwarden."""

from __future__ import annotations

import asyncio
import resource
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence

import asyncssh
import pytest

from remote.connect import Host, open_host
from remote.facts.memory import MEMORY, Memory
from tests.bench.table import show
from tests.bench.target import SshTarget
from tests.emulators.proxy import Proxy, proxied

pytestmark = pytest.mark.bench

RTT_S = (0.020, 0.060, 0.120)
TIMES = 15
ROUNDS, BATCH = 7, 20
Ask = Callable[[], Awaitable[object]]


async def ask_memory(host: Host) -> None:
    answer = (await host.ask(MEMORY))[MEMORY]
    assert isinstance(answer, Memory)


async def login(target: SshTarget, port: int) -> asyncssh.SSHClientConnection:
    known = asyncssh.import_known_hosts(f"[127.0.0.1]:{port} {target.host_key}\n")
    return await asyncssh.connect("127.0.0.1", port, username="root", client_keys=[target.key], known_hosts=known, config=None)


async def seconds(ask: Ask, times: int) -> float:
    """The median of so many questions, one after the other."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        await ask()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


async def trips(ask: Ask, proxy: Proxy) -> tuple[float, list[float], float]:
    """Slope of time on round-trip time, the times, and what the proxy counted a question."""
    took, counted = [], 0
    for rtt_s in RTT_S:
        proxy.one_way_s = rtt_s / 2
        await ask()
        proxy.count_afresh()
        took.append(await seconds(ask, TIMES))
        counted += proxy.round_trips
    return statistics.linear_regression(RTT_S, took).slope, took, counted / (TIMES * len(RTT_S))


async def test_a_warm_question_costs_one_network_round_trip(target: SshTarget) -> None:
    async with proxied(target.port) as proxy:
        host = open_host(target.target(proxy.port))
        await ask_memory(host)
        ours = await trips(lambda: ask_memory(host), proxy)
        await host.close()
        connection = await login(target, proxy.port)
        plain = await trips(lambda: connection.run("cat /proc/meminfo"), proxy)
        connection.close()
        await connection.wait_closed()
    rows = [
        [name, f"{slope:.3f}", f"{counted:.2f}", *(f"{took * 1000:.1f}" for took in times)]
        for name, (slope, times, counted) in (("memwarden, memory", ours), ("asyncssh conn.run", plain))
    ]
    columns = ["network round trips", "slope", "counted", *(f"ms at RTT {rtt_s * 1000:.0f}" for rtt_s in RTT_S)]
    show("A warm question through a delaying proxy (limit 1.05)", columns, rows)
    assert ours[0] <= 1.05
    assert ours[2] == 1
    assert plain[2] == 2, "the proxy does not count"


def own_cpu_s() -> float:
    """CPU of this process and of the children it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


class Meter:
    """Wall and CPU of one way to ask, over interleaved rounds."""

    def __init__(self, name: str, ask: Ask, target: SshTarget) -> None:
        self.name = name
        self._ask = ask
        self._target = target
        self.wall_ms: list[float] = []
        self.client_ms: list[float] = []
        self.target_ms: list[float] = []

    async def round(self) -> None:
        client, there = own_cpu_s(), self._target.cpu_s()
        self.wall_ms.append(1000 * await seconds(self._ask, BATCH))
        self.client_ms.append(1000 * (own_cpu_s() - client) / BATCH)
        self.target_ms.append(1000 * (self._target.cpu_s() - there) / BATCH)

    @property
    def figures(self) -> Sequence[float]:
        """Medians of wall and the client's CPU; of the target's the mean, for its ticks are 10 ms."""
        return statistics.median(self.wall_ms), statistics.median(self.client_ms), statistics.fmean(self.target_ms)


async def test_the_memory_fact_beside_ssh_with_an_open_master(target: SshTarget) -> None:
    control = target.folder / "control"
    common = ["-F", "none", "-p", str(target.port), "-i", target.key, "-o", "StrictHostKeyChecking=no"]
    quiet = ["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-S", str(control), "root@127.0.0.1"]
    devnull = asyncio.subprocess.DEVNULL
    master = await asyncio.create_subprocess_exec("ssh", "-MN", *common, *quiet, stdin=devnull)

    async def through_master() -> None:
        ssh = await asyncio.create_subprocess_exec("ssh", *common, *quiet, "free", "-m", stdin=devnull, stdout=devnull)
        assert await ssh.wait() == 0

    host = open_host(target.target())
    connection = await login(target, target.port)
    try:
        async with asyncio.timeout(10):
            while not control.exists():
                await asyncio.sleep(0.02)
        meters = [
            Meter("memwarden, memory", lambda: ask_memory(host), target),
            Meter("asyncssh conn.run free -m", lambda: connection.run("free -m"), target),
            Meter("ssh -S ctl free -m", through_master, target),
        ]
        for _ in range(ROUNDS + 1):
            for meter in meters:
                await meter.round()
        for meter in meters:  # the first round warms up
            del meter.wall_ms[0], meter.client_ms[0], meter.target_ms[0]
    finally:
        await host.close()
        connection.close()
        await connection.wait_closed()
        master.terminate()
        await master.wait()
    ours = meters[0].figures
    rows = []
    for meter in meters:
        wall, client, there = meter.figures
        ratios = [f"{wall / ours[0]:.1f}x", f"{client / ours[1]:.1f}x", f"{there / ours[2]:.1f}x" if ours[2] else "-"]
        rows.append([meter.name, f"{wall:.2f}", ratios[0], f"{client:.2f}", ratios[1], f"{there:.2f}", ratios[2]])
    columns = ["ways to ask for memory", "wall ms", "", "our CPU ms", "", "target CPU ms", ""]
    show("The memory fact warm, beside ssh over an open master (no limit yet)", columns, rows)
