"""Questions to the machine's real shells over asyncssh's own server: answers, deadlines, caps, and what is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from remote.connect import Host, open_host
from remote.connect.shell import KEPT_SCRIPTS
from remote.errors import HostError, Unparsable
from remote.facts.base import Answers, Fact, Unreadable
from tests.remote.connect.conftest import SHELLS, eventually, fact, running, said, unlikely_seconds
from tests.remote.connect.server import LoginServer, ssh_server


@pytest.fixture(params=SHELLS, ids=" ".join)
async def shell(request: pytest.FixtureRequest, key_path: str) -> AsyncIterator[LoginServer]:
    """A server with each shell."""
    async with ssh_server(key_path, shell=request.param) as server:
        yield server


@pytest.fixture
async def host(shell: LoginServer) -> AsyncIterator[Host]:
    opened = open_host(shell.target())
    yield opened
    await opened.close()


def of(answers: Answers, one: Fact[str]) -> str:
    """What was answered, or the kind of why not."""
    value = answers[one]
    return kind(value)


def kind(value: str | Unreadable) -> str:
    return value.kind if isinstance(value, Unreadable) else f"answered: {value!r}"


async def test_answers_are_kept_to_the_byte(host: Host) -> None:
    scripts = {
        "echo one": "one\n",
        "printf two": "two",
        ":": "",
        "printf '\\n\\nx\\n\\n'": "\n\nx\n\n",
        "printf '\\377'": "\\xff",
    }
    facts = [fact(script) for script in scripts]

    answers = await host.ask(*facts)

    assert [of(answers, each) for each in facts] == [f"answered: {output!r}" for output in scripts.values()]


async def test_the_environment_is_ours_and_stdin_is_empty(host: Host) -> None:
    answer = await said(host, 'echo "$PATH|$HOME|$LC_ALL|$TZ"; cat; echo to-stderr >&2')

    assert answer == "/usr/sbin:/usr/bin:/sbin:/bin|/|C|UTC\n"


async def test_text_of_any_kind_reaches_the_script_unchanged(host: Host) -> None:
    text = 'it\'s "quoted" $HOME `id` \\n \\ * ж \x81\x88 ; & | ) } # é'

    assert await said(host, f"cat <<'END'\n{text}\nEND\n") == text + "\n"


@pytest.mark.parametrize(
    "script",
    [
        "exit 3",
        "if then fi",
        "echo 'unclosed",
        "exec false",
        "exec /no/such/program",
        "kill -9 $(exec sh -c 'echo $PPID')",
        "set -e; false",
        "set -u; echo $never_set",
        ". /no/such/file",
        "-x",
        ")",
        "}",
        "done",
        "return 3",
        "readonly mw_q=5; exit 1",
    ],
)
async def test_a_script_that_fails_is_a_failed_fact_and_no_more(host: Host, script: str) -> None:
    bad, good = fact(script), fact("echo good")

    answers = await host.ask(bad, good)
    again = await host.ask(good)

    assert of(answers, bad) == "failed"
    assert answers[good] == again[good] == "good\n"


async def test_a_script_cannot_change_the_shell(host: Host) -> None:
    look = "echo $PATH; echo /[e]tc; umask; alias; trap; command -V printf wait mw_reap"
    before = await said(host, look)

    await said(
        host,
        "alias echo=false printf=false wait=false; printf() { command echo forged; }; wait() { sleep 9; }; mw_reap() { :; }\n"
        "trap 'exit 9' 0 1 2 15; mw_q=1; exec 3>&1; cd /proc; umask 777; PATH=/nowhere; LC_ALL=x; set -f -x",
    )

    assert await said(host, look) == before
    assert kind(await said(host, "sleep 20", deadline_s=0.2)) == "timeout"


async def test_output_that_looks_like_frames_is_output(host: Host) -> None:
    forged = "".join(f"\n{'0' * 32} {k} 0\n" for k in range(5)) + "\n" + "a" * 32 + " +\n"
    liar, good = fact(f"printf '{forged}'; set; cat /proc/$$/cmdline /proc/$$/environ"), fact("echo good")

    answers = await host.ask(liar, good)

    told = answers[liar]
    assert isinstance(told, str)
    assert told.startswith(forged)
    assert answers[good] == "good\n"


async def test_no_script_can_read_the_nonce(host: Host) -> None:
    snoop = fact(
        "set; env; cat /proc/[0-9]*/cmdline /proc/self/environ 2>/dev/null | tr '\\0' '\\n' | grep -E '^[0-9a-f]{32}$'; :"
    )

    first, second = (await host.ask(snoop))[snoop], (await host.ask(snoop))[snoop]

    # What a script can see (the channel's mark, say) stays the same from one question to the next; a nonce would not.
    words = [{w for line in str(seen).splitlines() for w in line.split("=")} for seen in (first, second)]
    assert not {w for w in words[0] ^ words[1] if len(w.strip("'")) == 32}


async def test_a_stuck_script_is_ended_at_its_deadline_with_all_it_started(host: Host) -> None:
    n = unlikely_seconds()
    stuck = fact(
        f"trap '' 1 2 3 13 15; sleep {n} & (sleep {n} &) ; setsid sh -c 'sleep {n} & wait' & "
        f"(setsid sleep {n} &) ; while :; do sleep {n}; done",
        deadline_s=0.4,
    )
    before, after = fact("echo before"), fact("echo after")

    answers = await host.ask(before, stuck, after)

    assert (answers[before], of(answers, stuck), answers[after]) == ("before\n", "timeout", "after\n")
    assert await eventually(lambda: not running(n))


async def test_scripts_within_their_deadlines_are_left_alone_when_one_before_them_is_ended(host: Host) -> None:
    facts = [
        fact("sleep 20", deadline_s=0.2),
        fact("sleep 0.3; echo whole"),
        fact("sleep 21", deadline_s=0.2),
        fact("sleep 0.1; echo too"),
    ]

    answers = await host.ask(*facts)

    assert [of(answers, each) for each in facts] == ["timeout", "answered: 'whole\\n'", "timeout", "answered: 'too\\n'"]


async def test_a_script_that_ends_just_at_its_deadline_does_not_hurt_the_next(host: Host) -> None:
    racer, next_one = fact("sleep 0.1; echo made it", deadline_s=0.1), fact("sleep 0.05; echo a; echo b")

    for _ in range(10):
        answers = await host.ask(racer, next_one)

        assert of(answers, racer) in {"timeout", "answered: 'made it\\n'"}
        assert answers[next_one] == "a\nb\n"


@pytest.mark.parametrize("script", ["cat /dev/zero", "yes", "while :; do echo line; done", "trap '' 13 15; yes & yes & wait"])
async def test_a_flood_costs_its_own_answer_only(host: Host, script: str) -> None:
    flood, good = fact(script, cap_bytes=50_000), fact("echo good")

    answers = await host.ask(flood, good)

    assert (of(answers, flood), answers[good]) == ("flood", "good\n")


async def test_one_byte_over_the_cap_is_a_flood_though_the_script_has_ended(host: Host) -> None:
    facts = [fact("printf 12345", cap_bytes=5), fact("printf 123456", cap_bytes=5)]

    answers = await host.ask(*facts)

    assert [of(answers, each) for each in facts] == ["answered: '12345'", "flood"]


async def test_thirty_stuck_questions_leave_no_process_and_no_channel(shell: LoginServer, host: Host) -> None:
    n = unlikely_seconds()
    stuck = fact(f"(setsid sleep {n} &); sleep {n}", deadline_s=0.05)

    kinds = {of(await host.ask(stuck), stuck) for _ in range(30)}

    assert kinds == {"timeout"}
    assert shell.sessions == shell.open_sessions == 1
    assert await eventually(lambda: not running(n))
    assert await said(host, "echo well") == "well\n"
    await host.close()
    assert await eventually(lambda: shell.open_sessions == 0)


async def test_a_script_goes_over_the_wire_once_a_shell(host: Host) -> None:
    long = fact("echo ok #" + "x" * 20_000)

    assert [of(await host.ask(long), long) for _ in range(3)] == ["answered: 'ok\\n'"] * 3


async def test_questions_asked_once_do_not_fill_the_shells_memory(host: Host) -> None:
    """A question with a pid in it is another script each time."""
    said_back = [await said(host, f"echo it is {n}; : '\\n' \"$HOME\" # it's one of many") for n in range(KEPT_SCRIPTS + 20)]

    assert said_back == [f"it is {n}\n" for n in range(KEPT_SCRIPTS + 20)]
    kept = str(await said(host, "set | grep -c '^mw_script'"))
    assert int(kept) <= KEPT_SCRIPTS


async def test_an_idle_shell_keeps_no_zombie(host: Host) -> None:
    shell_pid = int(str(await said(host, "echo $$")))

    def children() -> list[str]:
        stats = [path.read_text().rsplit(")", 1)[1].split() for path in Path("/proc").glob("[0-9]*/stat") if path.exists()]
        return [state for state, parent, *_ in stats if int(parent) == shell_pid]

    assert await eventually(lambda: not children())


async def test_a_parser_that_does_not_understand_gives_garbled(host: Host) -> None:
    def parse(text: str) -> str:
        raise Unparsable(text)

    def stumble(text: str) -> str:
        return text.split()[99]

    garbled = Fact("a", "echo nonsense", parse)
    stumbling = Fact("b", "echo nonsense", stumble)
    good = fact("echo good")

    answers = await host.ask(garbled, stumbling, good)

    assert [of(answers, each) for each in (garbled, stumbling)] == ["garbled", "garbled"]
    assert answers[good] == "good\n"


async def test_slow_facts_do_not_delay_quick_ones(shell: LoginServer, host: Host) -> None:
    slow, quick = fact("sleep 0.5; echo slow", slow=True), fact("echo quick")
    together = asyncio.create_task(host.ask(slow))

    assert await said(host, "echo quick") == "quick\n"
    assert not together.done()
    both = await host.ask(slow, quick)

    assert (both[slow], both[quick], (await together)[slow]) == ("slow\n", "quick\n", "slow\n")
    assert shell.open_sessions == 2


async def test_sampling_does_not_queue_behind_a_question(host: Host) -> None:
    asking = asyncio.create_task(said(host, "sleep 0.5; echo asked"))
    await asyncio.sleep(0)
    sample = fact("echo sampled")

    assert (await host.sample(sample))[sample] == "sampled\n"
    assert not asking.done()
    assert await asking == "asked\n"


async def test_a_cancelled_question_is_ended_on_the_host_and_the_next_is_answered(host: Host) -> None:
    n = unlikely_seconds()
    asking = asyncio.create_task(said(host, f"sleep {n}", deadline_s=60))
    assert await eventually(lambda: bool(running(n)))

    asking.cancel()
    await asyncio.wait([asking])

    assert asking.cancelled()
    assert await eventually(lambda: not running(n))
    assert await said(host, "echo next") == "next\n"


async def test_a_shell_that_is_killed_is_a_cut_and_the_next_question_gets_a_new_one(host: Host) -> None:
    with pytest.raises(HostError) as caught:
        await said(host, "echo half; kill -9 $$; exec sh -c 'kill -9 $PPID; echo whole'")

    assert caught.value.kind == "cut"
    assert await said(host, "echo next") == "next\n"


async def test_a_shell_that_is_stopped_gives_a_timeout_and_is_left(host: Host) -> None:
    pid = int(str(await said(host, "echo $$")))

    with pytest.raises(HostError) as caught:
        await said(host, "kill -STOP $$; sleep 30", deadline_s=0.2)

    assert caught.value.kind == "timeout"
    assert int(str(await said(host, "echo $$"))) != pid
    assert await said(host, f"kill -CONT {pid}") == ""


async def test_a_stream_gives_lines_as_they_come_and_ends_on_the_host_with_its_context(shell: LoginServer, host: Host) -> None:
    n = unlikely_seconds()
    got = []

    async with host.stream(f"echo one; printf 'two\\nthr'; printf 'ee\\n'; (setsid sleep {n} &); sleep {n}") as lines:
        async for line in lines:
            got.append(line)
            if len(got) == 3:
                break

    assert got == [b"one", b"two", b"three"]
    assert await eventually(lambda: not running(n) and shell.open_sessions == 0)


async def test_a_sigterm_on_the_way_out_does_not_keep_the_shell_from_ending_all(host: Host) -> None:
    n = unlikely_seconds()

    async with host.stream(f"(setsid sleep {n} &); echo $$; while :; do sleep {n}; done") as lines:
        pid = int(await anext(lines))
        assert await eventually(lambda: len(running(n)) == 2)
        # As when the host shuts down: dash looks at the signal only after the end of its stdin, in its exit trap.
        os.kill(pid, signal.SIGTERM)

    assert await eventually(lambda: not running(n))


async def test_a_stream_whose_script_ends_ends(host: Host) -> None:
    async with host.stream("echo one; printf two") as lines:
        assert [line async for line in lines] == [b"one", b"two"]


async def test_an_overlong_line_of_a_stream_is_cut(host: Host) -> None:
    async with host.stream("head -c 3000000 /dev/zero; echo; echo next") as lines:
        assert [len(line) async for line in lines] == [1 << 20, 4]


async def test_a_conversation_runs_commands_one_after_the_other(host: Host) -> None:
    async with host.converse() as conversation:
        first = await conversation.run("echo out; echo err >&2; exit 4", deadline_s=5)
        second = await conversation.run("yes | head -c 100000", deadline_s=5, cap_bytes=10)
        with pytest.raises(HostError) as caught:
            await conversation.run("sleep 30", deadline_s=0.2)
        last = await conversation.run("echo still here", deadline_s=5)

    assert (first.status, first.output) == (4, "out\nerr\n")
    assert (second.status, second.output) == (0, "y\ny\ny\ny\ny\n")
    assert caught.value.kind == "timeout"
    assert last.output == "still here\n"
    assert "still here" not in repr(last)


async def test_what_a_plan_starts_on_purpose_outlives_its_conversation(host: Host) -> None:
    n = unlikely_seconds()

    async with host.converse() as conversation:
        await conversation.run(f"(setsid sleep {n} >/dev/null 2>&1 &)", deadline_s=5)
        assert await eventually(lambda: bool(running(n)))

    [pid] = running(n)
    assert await said(host, f"kill {pid}") == ""
    assert await eventually(lambda: not running(n))


async def test_no_more_channels_than_a_connection_may_have(shell: LoginServer, host: Host) -> None:
    async with host.converse(), host.converse(), host.stream("sleep 5"):
        with pytest.raises(HostError) as caught:
            async with host.converse():
                pass
        quick, slow = fact("echo q"), fact("echo s", slow=True)
        await host.ask(quick, slow)
        await host.sample(quick)

        assert caught.value.kind == "busy"
        assert shell.open_sessions == 6
