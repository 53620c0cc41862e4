"""The emulator of Sentry refuses what the real one refuses."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from tests.emulators.sentry import Sentry

PATH = "/api/0/organizations/acme/issues/1170820242/comments/"


@pytest_asyncio.fixture
async def sentry() -> AsyncIterator[Sentry]:
    one = Sentry()
    async with one.serve():
        yield one


async def post(sentry: Sentry, path: str = PATH, *, token: str | None = None, text: object = "hello") -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {token or sentry.token}"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(sentry.url + path, json={"text": text}, headers=headers) as answer,
    ):
        return answer.status, await answer.text()


@pytest.mark.parametrize("path", [PATH, PATH.replace("comments", "notes"), "/api/0/issues/1170820242/comments/"])
async def test_a_comment_is_there_once_an_hour(path: str, sentry: Sentry) -> None:
    assert (await post(sentry, path))[0] == 201
    status, said = await post(sentry, path)

    assert (status, "You have already posted that comment." in said) == (400, True)
    assert sentry.texts() == ["hello"]


@pytest.mark.parametrize(
    ("path", "token", "text", "status"),
    [
        (PATH, "another", "hello", 401),
        (PATH.replace("acme", "emca"), None, "hello", 404),
        (PATH.replace("1170820242", "1"), None, "hello", 404),
        (PATH.rstrip("/"), None, "hello", 404),
        (PATH, None, " ", 400),
        (PATH, None, None, 400),
    ],
)
async def test_what_is_refused(path: str, token: str | None, text: object, status: int, sentry: Sentry) -> None:
    assert (await post(sentry, path, token=token, text=text))[0] == status
    assert sentry.comments == []


async def test_a_token_that_may_only_read(sentry: Sentry) -> None:
    sentry.scopes = frozenset({"event:read"})

    assert (await post(sentry))[0] == 403
