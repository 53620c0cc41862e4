"""Every way to be killed, on a real kernel, through the real process: told once in the chat, and its cause named.

The oracles are what the guest itself tells (`tests/lab/kills.py`) and the chat's emulator. One bot watches one guest while it
is killed in every way, one after the other, and two at once. `make lab` takes three ways, `make chaos` all, with and without swap.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.lab import kills
from tests.lab.kills import Driver, Killed
from tests.lab.machine import Lab
from tests.lab.stage import ANSWER_S, Bot, OnTelegram, Seen, ask, on, settings, stage, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

# What the card says of each cause.
WORDS = {
    "kernel-oom": "the whole machine was out of memory",
    "cgroup-limit": r"the memory limit of \S+ (which it is in, )?was reached",
    "systemd-oomd": "Killed by systemd-oomd",
    "userspace-oom": "Killed by earlyoom",
    "worker-timeout": "it hung longer than its timeout|it gave no sign of life",
    "stop-timeout": "Killed by systemd: it did not stop in time",
    "time-limit": "ran over the time limit",
    "manual": "Killed by (deploy|root)",
    "unknown": "Nothing says who killed it",
}
# All that the streams say when they follow.
FOLLOWS = "[ $(pgrep -fc '[j]ournalctl .*-f') -ge 1 ]"
ALONE: tuple[Driver, ...] = (
    *(kills.unit_limit, kills.parent_slice, kills.sudo_kill, kills.sudo_kill_of_a_main_process, kills.stop_timeout),
    *(kills.time_limit, kills.worker_timeout, kills.storm, kills.earlyoom, kills.systemd_oomd, kills.whole_machine),
)
MORE: tuple[Driver, ...] = (kills.group_storm, kills.audited_kill, kills.silent_gunicorn, kills.plain_kill, kills.watchdog)
# What `make lab` has time for; `make chaos` runs all.
EVERY_TIME = {kills.unit_limit, kills.parent_slice, kills.sudo_kill}
PAIRS: tuple[tuple[Driver, Driver], ...] = (
    (kills.unit_limit, kills.sudo_kill),
    (kills.worker_timeout, kills.parent_slice),
    (kills.stop_timeout, kills.storm),
    (kills.time_limit, kills.unit_limit),
)


@dataclass
class Watched:
    """A guest, the bot that watches it, and the chat that it tells."""

    lab: Lab
    chat: OnTelegram
    config: Path

    def telling(self, killed: Killed) -> list[Seen]:
        """The messages that tell of these kills."""
        return [seen for seen in self.chat.shown() if tells(seen.text, killed)]

    async def told(self, killed: Killed) -> str:
        """The one message of these kills, once it names all of them and the cause."""
        await self.chat.wait(lambda: [seen for seen in self.telling(killed) if says_why(seen.text, killed)], ANSWER_S)
        telling = self.telling(killed)
        assert len(telling) == 1, [seen.text for seen in telling]
        return telling[0].text

    async def data(self, command: str) -> list[dict[str, Any]]:
        """The kills in a command's JSON."""
        answer = await ask(self.config, command)
        assert answer["ok"], answer
        found: list[dict[str, Any]] = answer["hosts"][0]["data"]["kills"]
        return found


def tells(text: str, killed: Killed) -> bool:
    """Whether a card names each of these pids where it names pids (their unit, where the killer named no pid)."""
    named = {int(pid) for line in re.findall(r"\bpids? ((?:\d+(?:, | and )?)+)", text) for pid in re.findall(r"\d+", line)}
    if killed.pids:
        return set(killed.pids) <= named
    return killed.unit is not None and killed.unit in text


def says_why(text: str, killed: Killed) -> bool:
    """Whether the cause stands there, and the unit, and whose limit it was."""
    unit = None if killed.cause == "userspace-oom" else killed.unit  # which earlyoom does not name
    wanted = [WORDS[killed.cause], *(re.escape(name) for name in (unit, killed.limited) if name)]
    return all(re.search(pattern, text) for pattern in wanted)


def of(found: Sequence[dict[str, Any]], killed: Killed) -> list[dict[str, Any]]:
    """Those of a list that are these kills."""
    if killed.pids:
        return [kill for kill in found if kill["pid"] in killed.pids]
    return [kill for kill in found if kill["unit"] == killed.unit]


def agrees(found: Sequence[dict[str, Any]], killed: Killed) -> None:
    """The bot's own list says what the guest says: cause, proof, and how many."""
    same = of(found, killed)
    assert len(same) == killed.count, (killed, found)
    for kill in same:
        said = {name: kill[name] for name in ("unit", "cause", "confidence", "signal")}
        if killed.cause == "userspace-oom" and kill["unit"] is None:
            said["unit"] = killed.unit  # earlyoom names no cgroup, and where a process was that is gone nobody else tells
        assert said == {
            "unit": killed.unit, "cause": killed.cause, "confidence": killed.confidence, "signal": killed.signal,
        }, kill  # fmt: skip
        assert kill["evidence"], kill
    lines = [line for kill in same for line in kill["evidence"]]
    assert [line for line in lines if re.search(killed.evidence, line)], (killed.evidence, lines)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watched(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Watched]:
    """The runbook's server, and a bot that follows its journal."""
    await asyncio.to_thread(kills.lean, lab)
    async with stage("telegram") as chat:
        assert isinstance(chat, OnTelegram)
        config = settings(lab, tmp_path_factory.mktemp("watched"), chat.settings)
        async with Bot(config):
            await chat.ready()
            await until(lab, FOLLOWS, ANSWER_S)
            yield Watched(lab, chat, config)


@pytest_asyncio.fixture(loop_scope="module")
async def swap(request: pytest.FixtureRequest, lab: Lab) -> AsyncIterator[bool]:
    """A little swap for this test, or none."""
    if request.param:
        await asyncio.to_thread(kills.small_swap, lab)
    yield request.param
    await asyncio.to_thread(lab.swap, on=False)


def _cases() -> list[Any]:
    """Each way alone; what is slow with swap goes to the long rest."""
    rare = {(False, one) for one in (*MORE, *ALONE) if one not in EVERY_TIME} | {(True, one) for one in ALONE}
    every = [*((False, one) for one in (*ALONE, *MORE)), *((True, one) for one in ALONE)]
    return [
        pytest.param(
            swap, one, id=f"{one.__name__}-{'swap' if swap else 'no-swap'}",
            marks=(pytest.mark.chaos,) if (swap, one) in rare else (),
        ) for swap, one in every
    ]  # fmt: skip


@pytest.mark.parametrize(("swap", "driver"), _cases(), indirect=["swap"])
@pytest.mark.usefixtures("swap")
async def test_each_kill_is_told_once_with_its_cause(watched: Watched, driver: Driver) -> None:
    killed = await asyncio.to_thread(driver, watched.lab)
    await watched.told(killed)
    one = f" {killed.pids[0]}" if len(killed.pids) == 1 else ""
    agrees(await watched.data(f"/why prod{one}"), killed)
    await asyncio.to_thread(kills.stop_storm, watched.lab)


@pytest.mark.chaos
@pytest.mark.parametrize("swap", [pytest.param(False, id="no-swap"), pytest.param(True, id="swap")], indirect=True)
@pytest.mark.usefixtures("swap")
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: " and ".join(one.__name__ for one in pair))
async def test_two_at_once_are_told_apart(watched: Watched, pair: tuple[Driver, Driver]) -> None:
    both = await asyncio.gather(*(asyncio.to_thread(driver, watched.lab) for driver in pair))
    for killed in both:
        await watched.told(killed)
    found = await watched.data("/kills prod 1h")
    for killed in both:
        agrees(found, killed)
    await asyncio.to_thread(kills.stop_storm, watched.lab)


@pytest.mark.chaos
async def test_lies_raise_nothing_and_label_nothing_anew(watched: Watched) -> None:
    """Of a worker that lives, by everybody who may write something somewhere; then somebody does kill it, with sudo."""
    await asyncio.to_thread(kills.access_log, watched.lab)
    pid = await asyncio.to_thread(kills.newest_worker, watched.lab)
    for lie in kills.lies(pid):
        await asyncio.to_thread(kills.tell, watched.lab, lie)
    assert await asyncio.to_thread(kills.alive, watched.lab, pid)
    assert of(await watched.data(f"/why prod {pid}"), Killed("", None, (pid,))) == []
    assert [seen.text for seen in watched.chat.shown() if re.search(rf"\bpids? (?:\d+(?:, | and ))*{pid}\b", seen.text)] == []

    await on(watched.lab, f"sudo -u deploy sudo kill -9 {pid}")
    killed = Killed("manual", kills.SITE, (pid,), confidence="likely", evidence=rf"COMMAND=\S*kill -9 {pid}$")
    text = await watched.told(killed)
    assert "Killed process" not in text
    found = of(await watched.data(f"/why prod {pid}"), killed)
    agrees(found, killed)
    # Lines of that very worker, and nothing that others wrote of it.
    assert not [line for line in found[0]["evidence"] if re.search("TIMEOUT|Killed process|oom-kill|alice", line)]


@pytest.mark.chaos
async def test_a_user_s_flood_of_kills_delays_no_other(watched: Watched, capsys: pytest.CaptureFixture[str]) -> None:
    """As many as this guest can be made to kill in three minutes: the recorded journal's test has the ten thousand."""
    lab, seconds = watched.lab, 180
    await asyncio.to_thread(kills.flood, lab, 1000, 60)
    await until(lab, "journalctl _SYSTEMD_USER_UNIT=flood.service -o cat | grep -q begun", 60)
    began = await asyncio.to_thread(kills.now_s, lab)
    await asyncio.to_thread(kills.flood_reaches, lab, 500, seconds)
    killed = await asyncio.to_thread(kills.unit_limit, lab)
    ended = await asyncio.to_thread(kills.now_s, lab)
    await watched.told(killed)
    told = await asyncio.to_thread(kills.now_s, lab)
    await asyncio.to_thread(kills.flood_lasts, lab, began + seconds)
    staged = await asyncio.to_thread(kills.flooded, lab)
    with capsys.disabled():
        print(f"\n{staged} staged kills; the unit's was told {told - ended:.1f} s after its end")  # noqa: T201 - a measure
    assert staged >= 500
    assert told - ended < 30, "emulation is ten times slower than a machine"
    theirs = [seen for seen in watched.chat.shown() if "a user's own session" in seen.text]
    assert len(theirs) == 1, "once an hour a user"
    agrees(await watched.data(f"/why prod {killed.pids[0]}"), killed)
