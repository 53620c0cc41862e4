"""The runbook's story from a chat to a real server and back: two versions of a configuration, one approved fix, one undo."""

import asyncio
import re
from pathlib import Path

import pytest

from tests.lab.machine import Lab
from tests.lab.stage import ANSWER_S, PLAN_S, Bot, OnSlack, OnTelegram, Seen, ask, on, settings, stage, until

EXTRAS = {"celery_worker.service", "celery_beat.service", "celery-combined.service"}
KEPT = {"celery.service", "celery-beat.service"}
LINKS = "find /etc/systemd/system /run/systemd/system -type l -printf '%p %l\\n' -o -type f -exec sha256sum {} + | sort"
ACTIVE = "systemctl is-active celery_worker celery_beat celery-combined celery celery-beat teaching_panel; true"
SEND = (
    'cd /srv/teaching_panel && runuser -u www-data -- python3 -c "from teaching_panel.tasks import sleep_task\n'
    "for n in range(4): sleep_task.delay(SECONDS, '/tmp/task-%d' % n)\""
)  # fmt: skip


async def tasks_in_hand(lab: Lab, seconds: int = 30) -> None:
    """A 30 s task in each of the four workers, three of which the plan will end."""
    await on(lab, "rm -f /tmp/task-*")
    await on(lab, SEND.replace("SECONDS", str(seconds)))
    await until(lab, "[ $(cat /tmp/task-* 2>/dev/null | grep -c started) -eq 4 ]")


async def stray_pid(lab: Lab) -> str:
    """The main process of the worker that was started by hand."""
    listed = await on(
        lab,
        "for p in $(pgrep -f '[c]elery -A teaching_panel worker'); do grep -q user.slice /proc/$p/cgroup && echo $p; done; true",
    )
    return listed.split()[0]


async def the_right_end(lab: Lab, stray: str) -> None:
    """What the guest itself says: one worker, one beat, nothing left to start again, no task lost."""
    assert (await on(lab, ACTIVE)).split() == ["inactive", "inactive", "inactive", "active", "active", "active"]
    enabled = await on(lab, "systemctl is-enabled celery_worker celery_beat celery-combined celery celery-beat; true")
    assert enabled.split() == ["disabled", "disabled", "disabled", "enabled", "enabled"]
    assert (await on(lab, f"[ -d /proc/{stray} ] && echo there; true")).strip() == ""
    assert (await on(lab, "pgrep -fc '[c]elery -A teaching_panel beat'; true")).strip() == "1"
    assert (await on(lab, "ls /run/systemd/system; true")).split() == []
    await until(lab, "[ $(cat /tmp/task-* | grep -c finished) -eq 4 ]", 60)


def saying(on_stage: OnTelegram | OnSlack, pattern: str) -> list[Seen]:
    """The messages that say this, newest first."""
    return [seen for seen in reversed(on_stage.shown()) if re.search(pattern, seen.text)]


async def message(on_stage: OnTelegram | OnSlack, pattern: str, timeout_s: float = ANSWER_S) -> Seen:
    """The newest message that says this, once there is one."""
    return (await on_stage.wait(lambda: saying(on_stage, pattern), timeout_s))[0]


@pytest.mark.parametrize("platform", ["telegram", "slack"])
async def test_the_story_in_a_chat(lab: Lab, tmp_path: Path, platform: str) -> None:
    await asyncio.to_thread(lab.runbook)
    before, stray = await on(lab, LINKS), await stray_pid(lab)
    async with stage(platform) as chat, Bot(settings(lab, tmp_path, chat.settings)) as bot:
        await chat.ready()

        await chat.say("owner", "/mem prod")
        mem = await message(chat, r"prod: \d+\s?% used")
        assert "teaching_panel" in mem.text

        await chat.say("stranger", "/mem prod")
        await chat.say("owner", "/duplicates prod")
        duplicates = await message(chat, "extras?, .* could be freed")
        assert set(re.findall(r"[\w-]+\.service", duplicates.text)) == EXTRAS | KEPT
        assert f"pid {stray}" in duplicates.text
        assert len(chat.shown()) == 2, "a stranger in a group gets silence"

        await tasks_in_hand(lab)
        await chat.say("owner", "/fix prod")
        card = await message(chat, "steps? frees? about")

        await chat.press(card, "Approve", "stranger")
        assert "team" in await chat.wait(lambda: " ".join(chat.toasts("stranger")))
        await chat.press(card, "Approve", "viewer")
        assert "approver" in await chat.wait(lambda: " ".join(chat.toasts("viewer")))
        assert (await on(lab, ACTIVE)).split() == ["active"] * 6

        await chat.press(card, "Approve", "owner")
        await message(chat, "done and checked", PLAN_S)
        await the_right_end(lab, stray)

        await chat.press(card, "Approve", "viewer")
        await chat.wait(lambda: len(chat.toasts("viewer")) == 2)
        told = len(chat.toasts("owner"))
        await chat.press(card, "Approve", "owner")
        again = await chat.wait(lambda: chat.toasts("owner")[told:])
        assert "owner" in again[0]
        assert "verified" in again[0]

        await chat.press(saying(chat, "done and checked")[0], "Undo", "owner")
        undo = await message(chat, "Take back plan")
        await chat.press(undo, "Approve", "owner")
        await message(chat, "was undone|is undone|undone", PLAN_S)
        assert (await on(lab, ACTIVE)).split() == ["active"] * 6
        assert await on(lab, LINKS) == before
        assert await bot.stop() == 0


async def test_the_story_from_the_command_line(lab: Lab, tmp_path: Path) -> None:
    await asyncio.to_thread(lab.runbook)
    before, stray = await on(lab, LINKS), await stray_pid(lab)
    config = settings(lab, tmp_path, "")

    found = (await ask(config, "/duplicates prod"))["hosts"][0]["data"]["groups"]
    assert {extra["unit"] for group in found for extra in group["extra"]} == EXTRAS | {None}
    assert {group["keep"]["unit"] for group in found} == KEPT

    await tasks_in_hand(lab)
    plan = (await ask(config, "/fix prod"))["hosts"][0]["data"]["plan"]
    done = await ask(config, f"/approve {plan['id']}")
    assert done["hosts"][0]["data"]["state"] == "verified"
    await the_right_end(lab, stray)
    assert not (await ask(config, f"/approve {plan['id']}"))["ok"]

    undo = await ask(config, f"/undo {plan['id']}")
    back = await ask(config, f"/approve {undo['hosts'][0]['data']['id']}")
    assert back["hosts"][0]["data"]["state"] == "verified"
    assert (await on(lab, ACTIVE)).split() == ["active"] * 6
    assert await on(lab, LINKS) == before
    nothing = (await ask(config, "/why prod"))["hosts"][0]["data"]["kills"]
    assert nothing == []


async def test_a_press_on_an_expired_plan(lab: Lab, tmp_path: Path) -> None:
    await asyncio.to_thread(lab.runbook)
    async with (
        stage("telegram") as chat,
        Bot(settings(lab, tmp_path, chat.settings, more="\n[approvals]\nexpire = '8s'\n")) as bot,
    ):
        await chat.ready()
        await chat.say("owner", "/fix prod")
        card = await message(chat, "steps? frees? about")
        gone = await message(chat, "expired", 60)
        assert gone.buttons == ("Plan again",)
        await chat.press(card, "Approve", "owner")
        assert "expired" in await chat.wait(lambda: " ".join(chat.toasts("owner")))
        assert (await on(lab, ACTIVE)).split() == ["active"] * 6
        await bot.stop()


@pytest.mark.parametrize("asleep", [False, True], ids=["awake", "asleep"])
async def test_a_kill_by_a_unit_s_limit_is_told_once(lab: Lab, tmp_path: Path, *, asleep: bool) -> None:
    """With victim, unit and limit; also when the bot was stopped during the kill."""
    await asyncio.to_thread(lab.reset)
    async with stage("telegram") as chat, Bot(settings(lab, tmp_path, chat.settings)) as bot:
        await chat.ready()
        await chat.say("owner", "/hosts")
        await message(chat, "prod")
        await until(lab, "pgrep -f '[j]ournalctl .*-f' >/dev/null", ANSWER_S)
        if asleep:
            await bot.kill()
        await on(lab, "systemctl start hog@300.service; true")
        await until(lab, "journalctl -k | grep -q 'Killed process'")
        victim = (await on(lab, r"journalctl -k -o cat | sed -n 's/.*Killed process \([0-9]*\).*/\1/p' | tail -n 1")).strip()
        if asleep:
            await bot.start()
            await chat.ready()
        alert = await message(chat, victim)
        assert "hog@300.service" in alert.text
        assert "100 MiB" in alert.text
        await chat.say("owner", "/why prod")
        await chat.wait(lambda: len([seen for seen in chat.shown() if victim in seen.text]) == 2)
        assert len([seen for seen in chat.shown() if "hog@300" in seen.text]) == 2, "one alert, one answer"
        await bot.stop()


async def test_a_bot_that_dies_in_mid_plan_reads_and_never_repeats(lab: Lab, tmp_path: Path) -> None:
    await asyncio.to_thread(lab.runbook)
    before = await on(lab, LINKS)
    async with stage("telegram") as chat, Bot(settings(lab, tmp_path, chat.settings)) as bot:
        await chat.ready()
        await tasks_in_hand(lab, 90)
        await chat.say("owner", "/fix prod")
        await chat.press(await message(chat, "steps? frees? about"), "Approve", "owner")
        await until(lab, "systemctl show -p ActiveState celery_worker | grep -q deactivating")
        await bot.kill()
        await bot.start()
        card = await message(chat, "was interrupted", PLAN_S)
        assert "celery-combined.service" in card.text

        first, *others = (await on(lab, ACTIVE)).split()
        assert first == "inactive", "what systemd had begun it ended"
        assert others == ["active"] * 5, "and nothing after it was begun"
        stops = "journalctl -u celery_worker.service -o cat --since -5min | grep -c '^Stopping'; true"
        assert (await on(lab, stops)).strip() == "1"

        await chat.press(card, "Undo", "owner")
        await chat.press(await message(chat, "Take back plan"), "Approve", "owner")
        await message(chat, "was undone", PLAN_S)
        assert (await on(lab, ACTIVE)).split() == ["active"] * 6
        assert await on(lab, LINKS) == before
        assert (await on(lab, "ls /run/systemd/system; true")).split() == []
