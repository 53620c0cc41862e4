"""From a hook to what the chat and the asker are told: once, over crashes, and never beside the watch."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, select

from bot.alerts.kills import KillRule, Sighted
from bot.hooks import asker
from bot.i18n import render
from bot.settings import ChatSettings, HookSettings, HostSettings, Settings, TelegramSettings
from bot.store import Store, open_store
from bot.store.tables import events, hooks
from handlers.cards.kill import kill_card
from handlers.reply import Title
from remote.facts.journal import parse_entry
from remote.findings import death
from remote.findings.kill import Kill
from tests.bot.chats import MemoryChat
from tests.bot.hooks.test_sources import ALERT
from tests.bot.hooks.world import AFTER_THE_KILL, RecordedHost, World, lines, living
from tests.bot.waiting import until
from tests.clock import StandingClock
from tests.emulators.sentry import WEBHOOK_TIMEOUT_S, Sentry

CAUSE = "Killed by the kernel: the memory limit of teaching_panel.service was reached"


def kills() -> tuple[Kill, ...]:
    """What the recorded host's journal tells."""
    entries = [entry for entry in map(parse_entry, lines("gunicorn-oom")) if entry is not None]
    return death.kills(entries)


def headline() -> str:
    title = kill_card("prod", kills(), AFTER_THE_KILL).blocks[0]
    assert isinstance(title, Title)
    return render(title.text, "en")


KILLED = headline()


async def watched(world: World) -> None:
    """The watch sees those kills."""
    rule = KillRule(world.app.settings, world.app.store, world.app.outbox, world.clock)
    async with world.app.store.begin() as tx:
        await rule.add(tx, "prod", [Sighted(kill) for kill in kills()])
    await world.app.outbox.drained()


async def test_a_killed_worker_that_sentry_reports_is_told_with_its_cause_and_a_link_back(world: World) -> None:
    assert await world.from_sentry(world.sentry.issue()) == 200
    card, report = await world.settle()

    assert card.startswith(KILLED)
    assert CAUSE in card
    assert report.splitlines() == [
        KILLED,
        "Sentry reports it too: TEACHING-PANEL-9: Worker (pid:415) was sent SIGKILL! Perhaps out of memory?",
        f"{world.sentry.url}/organizations/acme/issues/1170820242/",
    ]
    assert [button.command for row in world.chat.shown[1].reply.buttons for button in row] == ["/why prod 415"]
    assert not world.chat.shown[1].reply.loud


async def test_the_same_hook_twice_acts_once(world: World) -> None:
    for _ in range(2):
        assert await world.from_sentry(world.sentry.issue()) == 200
        await world.settle()
        world.clock.go(60)

    assert len(world.chat.calls) == 2
    assert world.host.asked == 1
    assert len(world.sentry.comments) == 1


async def test_two_at_once_act_once(world: World) -> None:
    body = world.sentry.issue()
    assert set(await asyncio.gather(*(world.from_sentry(body) for _ in range(8)))) == {200}
    await world.settle()

    assert (await world.rows())["hooks"] == 1
    assert len(world.chat.shown) == 2


async def test_what_the_watch_told_before_is_not_told_again(world: World) -> None:
    await watched(world)
    before = list(world.chat.calls)
    await world.from_sentry(world.sentry.issue())

    card, report = await world.settle()
    assert card.startswith(KILLED)
    assert report.splitlines()[1].startswith("Sentry reports it too")
    assert [call.split()[0] for call in world.chat.calls[len(before) :]] == ["send"]
    assert (await world.rows())["kills"] == 1


async def test_what_the_watch_sees_afterwards_is_not_told_again_either(world: World) -> None:
    await world.from_sentry(world.sentry.issue())
    await world.settle()
    calls = len(world.chat.calls)
    await watched(world)

    assert len(world.chat.calls) == calls
    assert (await world.rows())["kills"] == 1


async def test_several_hooks_of_one_issue_share_a_message(world: World) -> None:
    await world.from_sentry(world.sentry.issue())
    await world.settle()
    world.clock.go(60)
    await world.from_sentry(world.sentry.event())
    await world.settle()

    assert len(world.chat.shown) == 2
    assert "#1170820242: Worker (pid:415)" in world.texts()[1]
    assert len(world.sentry.calls) == 1


async def test_several_issues_stand_in_one_message_of_bounded_length(world: World) -> None:
    world.host.gate.clear()
    for n in range(8):
        await world.from_sentry(world.sentry.issue(issue=str(100 + n), shortId=f"P-{n}"))
    world.host.gate.set()
    await world.settle()
    world.clock.go(asker.EVERY.total_seconds())
    await world.settle()

    assert len(world.chat.shown) == 2
    report = world.texts()[1]
    assert report.count("Sentry reports it too") == 5
    assert report.splitlines()[-1] == "and 3 more reports"
    assert world.host.asked == 2


async def test_of_several_kills_the_one_that_an_issue_names_is_meant(world: World) -> None:
    world.host.journal = (*lines("gunicorn-oom"), *lines("celery-oom"))
    world.clock.go(60)
    await world.from_sentry(world.sentry.issue(title="Process 'ForkPoolWorker-1' pid:632 exited with 'signal 9 (SIGKILL)'"))
    await world.settle()

    report = world.chat.shown[-1]
    assert [button.command for row in report.reply.buttons for button in row] == ["/why prod 632"]
    assert "celery.service" in world.texts()[-1].splitlines()[0]
    assert "celery.service" in world.sentry.texts()[0].splitlines()[2]


async def test_hooks_of_one_look_are_each_about_their_own_time(world: World) -> None:
    world.clock.go(-20 * 60)
    world.host.down = True
    await world.from_sentry(world.sentry.issue(issue="7", title="Something else, long before"))
    await world.settle()
    world.clock.go(20 * 60)
    await world.from_sentry(world.sentry.issue())
    world.host.down = False
    texts = await world.settle()

    assert await world.states() == ["none", "told"]
    assert [text.splitlines()[0] for text in texts][:2] == [KILLED, KILLED]
    assert texts[2].startswith("Sentry reports TEACHING-PANEL-9: Something else, long before on prod; I looked")


def test_what_users_stage_is_no_evidence() -> None:
    (kill,) = kills()

    assert asker.evidence((kill, replace(kill, staged=True))) == (kill,)


async def test_an_issue_that_names_another_process_is_only_beside_the_kill(world: World) -> None:
    await world.from_sentry(world.sentry.issue(title="OperationalError: server closed the connection", metadata={}))
    await world.settle()

    assert "Sentry reports at the same time: TEACHING-PANEL-9: OperationalError" in world.texts()[1]


async def test_without_evidence_there_is_one_line_an_hour(world: World) -> None:
    world.host.journal = ()
    for n in range(5):
        await world.from_sentry(world.sentry.issue(issue=str(n + 1), shortId=f"P-{n}", title="Worker died"))
        await world.settle()
        world.clock.go(60)
    assert world.texts() == [
        f"Sentry reports P-0: Worker died on prod; I looked and found no kill.\n{world.sentry.url}/organizations/acme/issues/1/"
    ]
    assert world.host.asked == 5
    assert world.sentry.comments == []

    world.clock.go(3600)
    await world.from_sentry(world.sentry.issue(issue="9"))
    assert len(await world.settle()) == 2


async def test_what_could_not_be_seen_is_said(world: World) -> None:
    world.host.journal, world.host.words = (), ("= own",)
    await world.from_sentry(world.sentry.issue())

    (text,) = await world.settle()
    assert text.splitlines()[2:] == ["I may read only my own messages in the journal: kills may be missed."]


async def test_the_hour_lasts_over_a_restart(store_url: str, sentry: Sentry, clock: StandingClock) -> None:
    host, chat = RecordedHost(), MemoryChat()
    host.gate.set()
    for n in range(3):
        async with living(store_url, sentry, host, clock, chat) as world:
            await world.from_sentry(sentry.issue(issue=str(n + 1)))
            await world.settle()
        clock.go(60)

    assert len(chat.shown) == 1


async def test_a_kill_of_another_time_is_not_what_a_hook_is_about(world: World) -> None:
    world.clock.go(asker.NEARBY.total_seconds() + 60)
    await world.from_sentry(world.sentry.issue())

    (line,) = await world.settle()
    assert line.startswith("Sentry reports")
    assert (await world.rows())["kills"] == 0


async def test_alertmanager_asks_the_same_way(world: World) -> None:
    assert await world.from_alertmanager(ALERT) == 200
    card, report = await world.settle()

    assert card.startswith(KILLED)
    assert report.splitlines()[1:] == [
        "Alertmanager reports at the same time: HostOomKillDetected: Host OOM kill detected",
        "https://alerts.example.com/#/alerts?filter=%7Balertname%3D%22HostOomKillDetected%22%7D",
    ]
    assert world.sentry.comments == []
    assert await world.from_alertmanager(ALERT, {**ALERT, "status": "resolved"}) == 200
    assert len(await world.settle()) == 2
    assert world.host.asked == 1
    assert await world.from_alertmanager(ALERT, token="wrong") == 401


async def test_what_the_settings_do_not_map_is_asked_of_nobody(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    for n in range(5):
        assert await world.from_sentry(world.sentry.issue(issue=str(n + 1), project={"slug": "prod", "id": "prod"})) == 200
    await world.from_alertmanager({**ALERT, "labels": {"instance": "prod"}})

    assert await world.settle() == []
    assert world.host.asked == 0
    assert await world.rows() == {"events": 0, "hooks": 0, "kills": 0, "messages": 0}
    assert capsys.readouterr().out.count("nothing that the settings map to a host") == 1


async def test_nothing_that_a_hook_links_to_is_fetched(world: World) -> None:
    fetched: list[bytes] = []

    async def trap(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fetched.append(await reader.readline())
        writer.close()

    server = await asyncio.start_server(trap, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    more: dict[str, Any] = dict.fromkeys(("url", "web_url", "project_url", "permalink", "issue_url"), url)
    await world.from_sentry(world.sentry.issue(**more))
    await world.from_sentry(world.sentry.event(**{**more, "project": 42}))
    await world.from_alertmanager({**ALERT, "generatorURL": url, "silenceURL": url})
    await world.settle()
    world.clock.go(asker.EVERY.total_seconds())
    texts = await world.settle()
    server.close()

    assert fetched == []
    assert len(texts) == 3
    assert not any(url in text for text in texts)
    assert not any(url in text for text in world.sentry.texts())


async def test_sentry_is_answered_before_the_host_is(world: World) -> None:
    world.host.gate.clear()

    assert await world.from_sentry(world.sentry.issue(), within_s=WEBHOOK_TIMEOUT_S) == 200
    assert world.texts() == []
    world.host.gate.set()
    assert len(await world.settle()) == 2


async def test_a_host_that_is_down_is_asked_again_until_it_answers(world: World) -> None:
    world.host.down = True
    await world.from_sentry(world.sentry.issue())
    for _ in range(4):
        assert await world.settle() == []
        world.clock.go(120)
    world.host.down = False

    assert [text.splitlines()[0] for text in await world.settle()] == [KILLED, KILLED]
    assert await world.states() == ["told"]


async def test_a_host_that_stays_down_is_said_once(world: World) -> None:
    world.host.down = True
    await world.from_sentry(world.sentry.issue())
    for _ in range(10):
        await world.settle()
        world.clock.go(600)

    (line,) = world.texts()
    assert line.splitlines()[0].endswith("on prod; I could not look: It does not answer.")
    assert await world.states() == ["none"]
    asked = world.host.asked
    world.clock.go(3600)
    await world.settle()
    assert world.host.asked == asked


async def test_a_journal_that_cannot_be_read_is_no_evidence_of_nothing(world: World) -> None:
    world.host.unreadable = True
    await world.from_sentry(world.sentry.issue())

    assert await world.settle() == []
    assert await world.states() == ["asked"]


async def test_hosts_do_not_wait_for_each_other(store_url: str, sentry: Sentry, host: RecordedHost, clock: StandingClock) -> None:
    slow = RecordedHost()

    def two(settings: Settings) -> Settings:
        assert settings.hooks is not None
        assert settings.hooks.sentry is not None
        mapped = settings.hooks.sentry.model_copy(update={"hosts": {"teaching-panel": "prod", "slow": "web"}})
        found = settings.hooks.model_copy(update={"sentry": mapped})
        return settings.model_copy(update={"hooks": found, "hosts": {**settings.hosts, "web": HostSettings(address="y")}})

    async with living(store_url, sentry, host, clock, change=two) as world:
        world.app.fleet._open["web"] = slow
        await world.from_sentry(sentry.issue(project={"slug": "slow"}))
        await until(lambda: slow.asked == 1)
        await world.from_sentry(sentry.issue(issue="2"))
        await until(lambda: len(world.chat.shown) == 2)
        slow.gate.set()
        await world.settle()
        assert await world.states() == ["none", "told"]


async def test_looks_at_one_host_keep_their_distance(world: World) -> None:
    world.host.journal = ()
    for n in range(5):
        await world.from_sentry(world.sentry.issue(issue=str(n + 1)))
        await world.settle()
    assert world.host.asked == 1
    assert await world.states() == ["none", "asked", "asked", "asked", "asked"]

    world.clock.go(asker.EVERY.total_seconds())
    await world.settle()
    assert world.host.asked == 2
    assert await world.states() == ["none"] * 5


async def test_what_was_asked_is_answered_in_the_next_life(
    store_url: str, sentry: Sentry, host: RecordedHost, clock: StandingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.hooks.service.DRAIN_S", 0.05)
    host.gate.clear()
    async with living(store_url, sentry, host, clock) as world:
        assert await world.from_sentry(sentry.issue()) == 200
        await until(lambda: host.asked == 1)
        assert await world.states() == ["asked"]

    host.gate.set()
    async with living(store_url, sentry, host, clock) as world:
        assert [text.splitlines()[0] for text in await world.settle()] == [KILLED, KILLED]
        assert await world.from_sentry(sentry.issue()) == 200
        assert len(await world.settle()) == 2
        assert host.asked == 2


async def test_what_has_begun_is_ended_before_the_end(
    store_url: str, sentry: Sentry, host: RecordedHost, clock: StandingClock
) -> None:
    host.gate.clear()
    async with living(store_url, sentry, host, clock) as world:
        await world.from_sentry(sentry.issue())
        await until(lambda: host.asked == 1)
        asyncio.get_running_loop().call_later(0.05, host.gate.set)
    store = await open_store(store_url)

    assert await states(store) == ["told"]
    await store.close()


async def states(store: Store) -> list[str]:
    async with store.connect() as tx:
        return list((await tx.execute(select(hooks.c.state))).scalars())


async def test_a_host_that_left_the_settings_is_not_asked(store_url: str, sentry: Sentry, clock: StandingClock) -> None:
    gone = RecordedHost(down=True)
    gone.gate.set()
    async with living(store_url, sentry, gone, clock) as world:
        await world.from_sentry(sentry.issue())
        await world.settle()
    clock.go(60)

    def without(settings: Settings) -> Settings:
        return settings.model_copy(update={"hosts": {"web": HostSettings(address="y")}})

    async with living(store_url, sentry, gone, clock, change=without) as world:
        assert await world.settle() == []
        assert await world.states() == ["none"]
        assert gone.asked == 1


async def test_each_chat_that_sees_the_host_is_told(
    store_url: str, sentry: Sentry, host: RecordedHost, clock: StandingClock
) -> None:
    def chats(settings: Settings) -> Settings:
        places = {
            "ops": ChatSettings(telegram="-1", hosts=("prod",)),
            "quiet": ChatSettings(telegram="-2", alerts=False),
            "other": ChatSettings(telegram="-3", hosts=()),
        }
        telegram = TelegramSettings.model_validate({"token": "1:a"})
        return settings.model_copy(update={"chats": places, "telegram": telegram})

    chat = MemoryChat()
    async with living(store_url, sentry, host, clock, chat, chats) as world:
        world.app.outbox._chats = {"telegram": chat}
        await world.from_sentry(sentry.issue())
        await world.settle()

    assert {one.to.chat for one in chat.shown} == {"-1"}
    assert len(chat.shown) == 2


async def test_a_kill_that_no_card_tells_is_told_whole(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule may keep a kill without a message, as for what a plan did."""

    async def untold(self: KillRule, tx: object, host: str, found: tuple[Kill, ...], *, batch: str = "") -> tuple[str, ...]:
        return ("",) * len(found)

    monkeypatch.setattr(KillRule, "add", untold)
    await world.from_sentry(world.sentry.issue())
    (message,) = await world.settle()

    assert CAUSE in message
    assert "Sentry reports it too" in message


async def test_old_answers_are_forgotten(world: World) -> None:
    await world.from_sentry(world.sentry.issue())
    await world.settle()
    world.clock.go(timedelta(days=31).total_seconds())
    world.hooks.wake()
    await until(lambda: world.hooks._asker is not None and world.hooks._asker._pruned == world.clock.now())
    await world.settle()

    assert (await world.rows())["hooks"] == 0


async def test_an_id_that_was_forgotten_before_its_answer_does_no_harm(world: World) -> None:
    await world.from_sentry(world.sentry.issue())
    await world.settle()
    async with world.app.store.begin() as tx:
        await tx.execute(delete(events))

    assert await world.from_sentry(world.sentry.issue()) == 200
    assert len(await world.settle()) == 2


async def test_without_settings_nothing_listens(store_url: str, sentry: Sentry, host: RecordedHost, clock: StandingClock) -> None:
    def off(settings: Settings) -> Settings:
        return settings.model_copy(update={"hooks": None})

    async with living(store_url, sentry, host, clock, change=off) as world:
        world.hooks.wake()
        assert world.hooks.port == 0
        assert world.hooks._tasks == []


async def test_an_address_that_is_taken_is_tried_again(
    store_url: str, sentry: Sentry, host: RecordedHost, clock: StandingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.hooks.service.AGAIN_S", 0.02)
    other = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = other.sockets[0].getsockname()[1]

    def there(settings: Settings) -> Settings:
        assert settings.hooks is not None
        listen = HookSettings.model_validate({**dict(settings.hooks), "listen": f"127.0.0.1:{port}"})
        return settings.model_copy(update={"hooks": listen})

    async with living(store_url, sentry, host, clock, change=there) as world:
        assert world.hooks.port == 0
        other.close()
        await other.wait_closed()
        await until(lambda: world.hooks.port == port)
        assert await world.from_sentry(sentry.issue()) == 200
