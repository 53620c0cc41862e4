"""Notes at a Sentry issue: sent until Sentry has them.

Sentry refuses a comment that the same user left within the hour with a 400, so a note whose answer was lost is not left twice.
https://github.com/getsentry/sentry/blob/master/src/sentry/issues/endpoints/group_notes.py
"""

from __future__ import annotations

import aiohttp

from bot.hooks.base import Outcome

TIMEOUT_S = 10.0
ANSWER = 64 << 10  # bytes of an answer that are read
TWICE = "already posted that comment"


async def post(url: str, token: str, text: str) -> Outcome:
    """Leave a note. `url` is the settings' own; a redirect is not followed, which would carry the token elsewhere."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(url, json={"text": text}, headers=headers, allow_redirects=False) as answer,
        ):
            body = await answer.content.read(ANSWER)
            return _outcome(answer.status, answer.headers.get("Retry-After", ""), body.decode("utf-8", "replace"))
    except (aiohttp.ClientError, TimeoutError) as trouble:
        return Outcome(sent=False, why=type(trouble).__name__, again_after_s=0.0)


def _outcome(status: int, retry_after: str, body: str) -> Outcome:
    if status in {200, 201} or (status == 400 and TWICE in body):  # noqa: PLR2004 - HTTP's own numbers
        return Outcome(sent=True)
    if status == 429 or status >= 500:  # noqa: PLR2004 - as above
        wait_s = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0
        return Outcome(sent=False, why=f"HTTP {status}", again_after_s=min(wait_s, 3600.0))
    return Outcome(sent=False, why=f"HTTP {status}")
