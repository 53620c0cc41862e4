"""A strict Slack on loopback: Web API, Socket Mode and response_urls for the real slack_bolt and slack_sdk.

In a test: `async with Slack() as slack:`, then point `AsyncWebClient(base_url=slack.base_url)` at it. As a process of its
own, for tests that kill and restart the bot: `python -m tests.emulators.slack --port N --control-port M`; its first line on
stdout is `{"base_url", "control_url", …}`, and `POST control_url` with `{"do": "slash", …}` drives it (see `Control`).
"""

import argparse
import asyncio
import json
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Any, Self, TypeVar

from aiohttp import web

from tests.emulators.faults import Call, Faults, Hold
from tests.emulators.slack_api import Asked, WebApi
from tests.emulators.slack_blocks import Button, Json, escape
from tests.emulators.slack_socket import ACK_DEADLINE_S, RETRY_DELAYS_S, Delivery, SocketMode
from tests.emulators.slack_world import (
    APP_ID,
    BOT_USER,
    TEAM,
    Channel,
    Content,
    Message,
    Refused,
    Response,
    ResponseUrl,
    User,
    World,
)

__all__ = ["BOT_USER", "TEAM", "Button", "Channel", "Delivery", "Message", "Slack", "User"]

T = TypeVar("T")


class Slack:
    """The emulator; times are seconds, `ack_deadline_s` and `retry_delays_s` may be shortened for tests."""

    def __init__(
        self,
        *,
        port: int = 0,
        bot_token: str = "xoxb-1-emulator",
        app_token: str = "xapp-1-emulator",
        ack_deadline_s: float = ACK_DEADLINE_S,
        retry_delays_s: Sequence[float] = RETRY_DELAYS_S,
        commands: frozenset[str] | None = None,
        echo_own: bool = True,
    ) -> None:
        self.world = World()
        self.faults = Faults()
        self.api = WebApi(self.world, self.faults, bot_token=bot_token, app_token=app_token)
        self.sockets = SocketMode(self.world, ack_deadline_s=ack_deadline_s, retry_delays_s=retry_delays_s)
        self.commands = commands  # what the manifest names; None takes all
        self.echo_own = echo_own  # in direct chats Slack tells a bot of its own messages too
        self._port = port
        self._runner: web.AppRunner | None = None
        self._echoes: set[asyncio.Task[Delivery]] = set()
        self.world.on_change.append(self._echo)

    # Life

    async def start(self) -> None:
        """Listen on 127.0.0.1."""
        app = web.Application(client_max_size=64 << 20)
        app.add_routes([*self.api.routes(), web.get("/link/", self.sockets.link)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self._port = int(self._runner.addresses[0][1])
        self.api.base = self.sockets.base = f"http://127.0.0.1:{self._port}"
        self.api.new_link = self.sockets.new_link

    async def stop(self) -> None:
        """Close everything."""
        self.faults.clear()
        await self.sockets.stop()
        if self._runner is not None:
            await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # Where and what

    @property
    def base_url(self) -> str:
        """What `AsyncWebClient(base_url=…)` takes."""
        return f"{self.api.base}/api/"

    @property
    def bot_token(self) -> str:
        """The bot's token, `xoxb-`."""
        return self.api.bot_token

    @property
    def app_token(self) -> str:
        """The app-level token, `xapp-`."""
        return self.api.app_token

    @property
    def channels(self) -> dict[str, Channel]:
        """Channels by id, direct chats too."""
        return self.world.channels

    @property
    def users(self) -> dict[str, User]:
        """People by id."""
        return self.world.users

    @property
    def ephemerals(self) -> list[Message]:
        """What stands for one person only."""
        return self.world.ephemerals

    @property
    def responses(self) -> list[Response]:
        """Every post to a response_url."""
        return self.world.responses

    @property
    def deliveries(self) -> list[Delivery]:
        """Every command, press and event."""
        return self.sockets.deliveries

    @property
    def calls(self) -> list[Asked]:
        """Every API call, in order."""
        return self.api.calls

    @property
    def counts(self) -> dict[str, int]:
        """API calls by method."""
        return dict(self.api.counts)

    @property
    def pings(self) -> list[str]:
        """Everything by which the bot would have notified people."""
        standing = [message for channel in self.channels.values() for message in channel.messages + channel.deleted]
        return [ping for message in standing + self.ephemerals if message.user == BOT_USER for ping in message.pings]

    @property
    def bot_messages(self) -> list[Message]:
        """What the bot wrote and still stands, in every channel, oldest first."""
        found = [message for channel in self.channels.values() for message in channel.from_bot]
        return sorted(found, key=lambda message: message.ts)

    async def wait_for(self, predicate: Callable[[], T], timeout_s: float = 5) -> T:
        """The predicate's first true value; see `World.wait_for`."""
        return await self.world.wait_for(predicate, timeout_s)

    # People

    async def slash(
        self, command: str, text: str = "", user: str = "U0ALICE", channel: str = "C0OPS", team: str | None = None
    ) -> Delivery:
        """A person types a command; its answer in the ack is shown as Slack does."""
        person = self.users[user]
        url = self.world.new_response_url(channel, user)
        payload = {
            "token": "verification",
            "team_id": team or person.team,
            "team_domain": "home",
            "channel_id": channel,
            "channel_name": self.channels[channel].name,
            "user_id": user,
            "user_name": person.name,
            "command": command,
            "text": escape(text),
            "api_app_id": APP_ID,
            "is_enterprise_install": "false",
            "response_url": self._address(url),
            "trigger_id": self.world.new_trigger(),
        }
        if self.commands is not None and command not in self.commands:
            return self._unsent("slash_commands", payload, command, "not_a_valid_command")
        return await self.sockets.deliver("slash_commands", payload, label=command, on_ack=lambda ack: self._show_ack(url, ack))

    def _unsent(self, kind: str, payload: dict[str, Any], label: str, failure: str) -> Delivery:
        delivery = Delivery(kind, payload, label)
        delivery.settle(failure)
        self.deliveries.append(delivery)
        return delivery

    def _show_ack(self, url: ResponseUrl, ack: Json) -> None:
        try:
            self.world.answer(url, ack, self.world.content(ack), via="ack")
        except Refused as refused:
            self.world.responses.append(Response(url.id, ack, refused.error, None))

    def _address(self, url: ResponseUrl) -> str:
        return f"{self.api.base}/response/{url.id}"

    async def mention(self, text: str, user: str = "U0ALICE", channel: str = "C0OPS", thread_ts: str | None = None) -> Delivery:
        """A person writes `@memwarden text` in a channel or a thread; Slack tells the bot only where it is a member."""
        message = self.say(f"<@{BOT_USER}> {escape(text)}", user, channel, thread_ts)
        payload = self._event(message, {"type": "app_mention"})
        if BOT_USER not in self.channels[channel].members:
            return self._unsent("events_api", payload, "app_mention", "not_in_channel")
        return await self.sockets.deliver("events_api", payload, label="app_mention")

    async def dm(self, text: str, user: str = "U0ALICE") -> Delivery:
        """A person writes to the bot alone."""
        message = self.say(escape(text), user, self.world.im(user).id)
        payload = self._event(message, {"type": "message", "channel_type": "im"})
        return await self.sockets.deliver("events_api", payload, label="message.im")

    def say(self, raw: str, user: str = "U0ALICE", channel: str = "C0OPS", thread_ts: str | None = None) -> Message:
        """A person writes something that the bot is not told of."""
        return self.world.post(self.channels[channel], user, Content(raw), thread_ts=thread_ts, via="person")

    def _event(self, message: Message, event: dict[str, Any]) -> dict[str, Any]:
        channel, person = self.channels[message.channel], self.users[message.user]
        body = {"user": message.user, "text": message.text, "ts": message.ts, "event_ts": message.ts, "channel": channel.id}
        body |= {"team": person.team, "client_msg_id": f"m{self.world.number()}"} | event
        if message.thread_ts:
            body["thread_ts"] = message.thread_ts
        if person.team != TEAM:
            body |= {"user_team": person.team, "source_team": person.team}
        return self._event_callback(channel, body)

    def _event_callback(self, channel: Channel, event: dict[str, Any]) -> dict[str, Any]:
        authorization = {"team_id": TEAM, "user_id": BOT_USER, "is_bot": True, "is_enterprise_install": False}
        return {
            "token": "verification",
            "team_id": TEAM,
            "context_team_id": TEAM,
            "api_app_id": APP_ID,
            "event": event,
            "type": "event_callback",
            "event_id": f"Ev{self.world.number()}",
            "event_time": int(self.world.now()),
            "authorizations": [authorization],
            "is_ext_shared_channel": channel.shared,
        }

    def _echo(self, what: str, message: Message) -> None:
        channel = self.channels.get(message.channel)
        mine = message.user == BOT_USER and not message.ephemeral_to
        if not (self.echo_own and mine and channel and channel.im and self.sockets.live):
            return
        task = asyncio.create_task(
            self.sockets.deliver("events_api", self._event_callback(channel, self._own_event(what, message)), label="echo")
        )
        self._echoes.add(task)
        task.add_done_callback(self._echoes.discard)

    def _own_event(self, what: str, message: Message) -> dict[str, Any]:
        place = {"type": "message", "channel": message.channel, "channel_type": "im", "event_ts": self.world.new_ts()}
        if what == "posted":
            return message.as_api() | place
        if what == "edited":
            return place | {"subtype": "message_changed", "ts": place["event_ts"], "message": message.as_api()}
        return place | {"subtype": "message_deleted", "ts": place["event_ts"], "deleted_ts": message.ts}

    async def press(self, message: Message, label_or_action: str, user: str = "U0ALICE", team: str | None = None) -> Delivery:
        """A person presses a button, and says yes where it asks again; an old screen may show buttons that are gone.

        Raises:
            LookupError: The message has no such button.
            PermissionError: The person can't see the message.
        """
        if message.ephemeral_to not in (None, user):
            raise PermissionError(f"only {message.ephemeral_to} sees it")
        return await self.press_button(message, message.button(label_or_action), user, team)

    async def press_button(self, message: Message, button: Button, user: str, team: str | None = None) -> Delivery:
        """Press this very button, even if the message has lost it by now."""
        url = self.world.new_response_url(message.channel, user, message)
        payload = self._press_payload(message, button, self.users[user], team)
        return await self.sockets.deliver("interactive", payload | {"response_url": self._address(url)}, label=button.label)

    def _press_payload(self, message: Message, button: Button, person: User, team: str | None) -> dict[str, Any]:
        container = {
            "type": "message",
            "message_ts": message.ts,
            "channel_id": message.channel,
            "is_ephemeral": message.ephemeral_to is not None,
        }
        payload: dict[str, Any] = {
            "type": "block_actions",
            "user": {"id": person.id, "username": person.name, "name": person.name, "team_id": person.team},
            "api_app_id": APP_ID,
            "token": "verification",
            "container": container | ({"thread_ts": message.thread_ts} if message.thread_ts else {}),
            "trigger_id": self.world.new_trigger(),
            "team": {"id": team or person.team, "domain": "home"},
            "enterprise": None,
            "is_enterprise_install": False,
            "channel": {"id": message.channel, "name": self.channels[message.channel].name},
            "state": {"values": {}},
            "actions": [self._action(button)],
        }
        # Slack sends no message for ephemeral ones.
        return payload if message.ephemeral_to else payload | {"message": message.as_api()}

    def _action(self, button: Button) -> dict[str, Any]:
        action = {"type": "button", "action_id": button.action_id, "block_id": button.block_id, "text": button.element["text"]}
        optional = {"value": button.value, "style": button.style, "confirm": button.confirm}
        return (
            action | {name: value for name, value in optional.items() if value is not None} | {"action_ts": self.world.new_ts()}
        )


class Control:
    """Drives an emulator of another process: `POST /` with `{"do": NAME, …arguments}`; errors are 400 with `{"error"}`."""

    def __init__(self, slack: Slack, port: int = 0) -> None:
        self.slack = slack
        self._port = port
        self._holds: list[Hold] = []
        self._runner: web.AppRunner | None = None
        self._does: dict[str, Callable[..., Awaitable[dict[str, Any]]]] = {
            "state": self.state,
            "slash": self.slash,
            "mention": self.mention,
            "dm": self.dm,
            "press": self.press,
            "wait": self.wait,
            "fault": self.fault,
            "hold": self.hold,
            "held": self.held,
            "release": self.release,
            "clear": self.clear,
            "drop": self.drop,
            "disconnect": self.disconnect,
            "connected": self.connected,
            "redeliver": self.redeliver,
            "add_user": self.add_user,
            "add_channel": self.add_channel,
        }

    async def start(self) -> str:
        """Listen; gives the URL."""
        app = web.Application()
        app.add_routes([web.post("/", self._do)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}/"

    async def stop(self) -> None:
        """Listen no more."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _do(self, request: web.Request) -> web.Response:
        arguments = await request.json()
        try:
            return web.json_response(await self._does[arguments.pop("do")](**arguments))
        except (LookupError, TypeError, ValueError, AssertionError, OSError) as error:
            return web.json_response({"error": f"{type(error).__name__}: {error}"}, status=400)

    async def state(self) -> dict[str, Any]:
        """Everything recorded."""
        slack = self.slack
        return {
            "channels": {name: [as_json(m) for m in channel.messages] for name, channel in slack.channels.items()},
            "ephemerals": [as_json(message) for message in slack.ephemerals],
            "responses": [{"error": r.error, "payload": r.payload} for r in slack.responses],
            "deliveries": [delivery_as_json(delivery) for delivery in slack.deliveries],
            "counts": slack.counts,
            "refused": [{"method": call.method, "error": call.error} for call in slack.calls if call.error],
            "pings": slack.pings,
            "connections": slack.sockets.connections,
            "live": len(slack.sockets.live),
        }

    async def slash(self, **arguments: str) -> dict[str, Any]:
        """See `Slack.slash`."""
        return delivery_as_json(await self.slack.slash(**arguments))

    async def mention(self, **arguments: str) -> dict[str, Any]:
        """See `Slack.mention`."""
        return delivery_as_json(await self.slack.mention(**arguments))

    async def dm(self, **arguments: str) -> dict[str, Any]:
        """See `Slack.dm`."""
        return delivery_as_json(await self.slack.dm(**arguments))

    async def press(self, ts: str, button: str, user: str = "U0ALICE", team: str | None = None) -> dict[str, Any]:
        """Press a button of the message with this ts."""
        return delivery_as_json(await self.slack.press(self._message(ts), button, user, team))

    def _message(self, ts: str) -> Message:
        everywhere = [m for channel in self.slack.channels.values() for m in channel.messages] + self.slack.ephemerals
        for message in everywhere:
            if message.ts == ts:
                return message
        raise LookupError(f"no message {ts}")

    async def wait(self, text: str, count: int = 1, timeout_s: float = 5) -> dict[str, Any]:
        """The bot's messages that show the text, as `messages`, once there are `count`."""

        def found() -> list[dict[str, Any]]:
            mine = self.slack.bot_messages + self.slack.ephemerals
            shown = [as_json(message) for message in mine if text in message.shown()]
            return shown if len(shown) >= count else []

        return {"messages": await self.slack.wait_for(found, timeout_s)}

    async def fault(
        self, when: int | str, kind: str, times: int | None = 1, after: int = 0, seconds: float = 1, status: int = 503
    ) -> dict[str, Any]:
        """Plan a fault; see `Faults.on`."""
        self.slack.faults.on(when, kind, times=times, after=after, seconds=seconds, status=status)
        return {}

    async def hold(self, when: int | str, stage: str) -> dict[str, int]:
        """Stop the next such call at a stage."""
        self._holds.append(self.slack.faults.hold(when, stage))
        return {"hold": len(self._holds) - 1}

    async def held(self, hold: int, timeout_s: float = 5) -> dict[str, Any]:
        """The call that stands there, once it does."""
        return call_as_json(await self._holds[hold].reached(timeout_s))

    async def release(self, hold: int) -> dict[str, Any]:
        """Let it go on."""
        self._holds[hold].release()
        return {}

    async def clear(self) -> dict[str, Any]:
        """Forget faults and holds."""
        self.slack.faults.clear()
        return {}

    async def drop(self) -> dict[str, Any]:
        """Let all sockets die."""
        self.slack.sockets.drop()
        return {}

    async def disconnect(self, reason: str = "refresh_requested") -> dict[str, Any]:
        """Ask all sockets to connect anew."""
        await self.slack.sockets.disconnect(reason)
        return {}

    async def connected(self, count: int = 1, timeout_s: float = 5) -> dict[str, Any]:
        """Wait for live sockets."""
        await self.slack.sockets.connected(count, timeout_s)
        return {}

    async def redeliver(self, index: int = -1) -> dict[str, Any]:
        """Send a delivery again in a new envelope."""
        delivery = self.slack.deliveries[index]
        await self.slack.sockets.redeliver(delivery)
        return delivery_as_json(delivery)

    async def add_user(self, user: str, name: str, team: str = TEAM, *, guest: bool = False) -> dict[str, Any]:
        """See `World.add_user`."""
        return asdict(self.slack.world.add_user(user, name, team=team, guest=guest))

    async def add_channel(
        self, channel: str, name: str, *, member: bool = True, private: bool = False, archived: bool = False
    ) -> dict[str, Any]:
        """See `World.add_channel`."""
        added = self.slack.world.add_channel(channel, name, member=member, private=private, archived=archived)
        return {"id": added.id}


def as_json(message: Message) -> dict[str, Any]:
    """A message for the control API."""
    return asdict(message) | {"shown": message.shown(), "buttons": [asdict(button) for button in message.buttons]}


def delivery_as_json(delivery: Delivery) -> dict[str, Any]:
    """A delivery for the control API."""
    return {
        "kind": delivery.kind,
        "label": delivery.label,
        "acked": delivery.acked,
        "acked_ms": delivery.acked_ms,
        "failure": delivery.failure,
        "shown_to_user": delivery.shown_to_user,
        "attempts": [asdict(attempt) for attempt in delivery.attempts],
    }


def call_as_json(call: Call) -> dict[str, Any]:
    """An API call for the control API."""
    return {"ordinal": call.ordinal, "method": call.method, "params": dict(call.params)}


async def serve(port: int, control_port: int) -> None:
    """Run until SIGTERM or SIGINT."""
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with Slack(port=port) as slack:
        control = Control(slack, control_port)
        ready = {"base_url": slack.base_url, "control_url": await control.start()}
        tokens = {"bot_token": slack.bot_token, "app_token": slack.app_token}
        print(json.dumps(ready | tokens), flush=True)  # noqa: T201 - how the parent learns the ports
        await ended.wait()
        await control.stop()


def main() -> None:
    """The process of its own."""
    parser = argparse.ArgumentParser(description="A strict Slack on loopback.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--control-port", type=int, default=0)
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.port, arguments.control_port))


if __name__ == "__main__":
    main()
