"""Redaction: no password, token or control character of a host's text may reach a chat, a log or a file.

It errs on the side of hiding: a word hidden in vain costs a look at the host, one shown for ever costs a secret.
"""

from __future__ import annotations

import re
import unicodedata

HIDDEN = "***"
LONGEST = 2048
"""Characters of a line that are looked at and shown; the patterns take too long on lines made for that."""

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_]|$)")

_NAMES = (
    r"(?:pass(?!ed|ing|ive|enger)(?:word|wd|phrase|code)?|passwd|secret|token|(?:api|access|private|auth|signing|encryption)[_-]?key"
    r"|credential|authorization|cookie|session[_-]?(?:id|key)|csrf|(?<![a-z])(?:pwd|dsn|salt|otp|pin)(?![a-z]))"
)
# Parts of a name that are hidden where something is set to it, and nowhere else: `auth.service: …` is a unit's line.
_PARTS = r"(?<![a-z])(?:auth|pw)(?![a-z])"
_QUOTED = r"(?:\"(?:\\.|[^\"\\])*\"?|'(?:\\.|[^'\\])*'?)"
# A value: quoted to its closing quote (or the end), or bare up to where a word ends.
_VALUE = rf"(?:{_QUOTED}|[^\s,;&\"'<>|)\]}}]+)"

_KNOWN = (
    r"\b(?:xox[a-z]-[\w-]{8,}|xapp-[\w-]{8,}|gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{15,}|npm_\w{30,}|pypi-[\w-]{30,}"
    r"|[sr]k[_-](?:live|test|proj)?[\w-]{16,}|A[KS]IA[0-9A-Z]{12,}|AIza[\w-]{30,}|hooks\.slack\.com/services/[\w/]+)"
)

_MYSQL = r"\b(?:mysql|mysqldump|mysqladmin|mariadb|mariadb-dump)"

_RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE | re.ASCII), replacement)
    for pattern, replacement in (
        # -----BEGIN PRIVATE KEY----- and all behind it: a log line may hold the whole key
        (r"(-----BEGIN [A-Z ]*PRIVATE KEY-----).*", rf"\1{HIDDEN}"),
        # scheme://user:password@host, scheme://:password@host; the password may hold `@` and `/` when badly written
        (r"\b([a-z][a-z0-9+.-]{0,20}://)([^\s/:@\"'<>]*):[^\s\"'<>]*@", rf"\1\2:{HIDDEN}@"),
        # scheme://token@host
        (r"\b([a-z][a-z0-9+.-]{0,20}://)[^\s/:@\"'<>]{16,}@", rf"\1{HIDDEN}@"),
        # Authorization: Bearer x, Basic x
        (r"\b(bearer|basic|digest|negotiate|token)(\s+)[a-z0-9._~+/=-]{8,}", rf"\1\2{HIDDEN}"),
        # a Telegram bot's token, as a word or in /bot…/sendMessage
        (r"\b(bot)?\d{6,12}:[a-z0-9_-]{30,}", rf"\1{HIDDEN}"),
        # tokens known by their beginning: Slack, GitHub, GitLab, OpenAI, Stripe, AWS, Google, npm, PyPI
        (_KNOWN, HIDDEN),
        # JSON web tokens
        (r"\beyJ[\w-]{8,}\.[\w-]{4,}(?:\.[\w-]*)?", HIDDEN),
        # what sudo set in the environment: its values are not quoted, so nobody can say where one ends
        (r"((?:^|\s;\s)ENV=).+(?=\s;\sCOMMAND=)", rf"\1{HIDDEN}"),
        (r"(\s;\sENV=)(?!.*\s;\sCOMMAND=).+", rf"\1{HIDDEN}"),
        # http://host/?key=x
        (r"([?&](?:key|code|sig|signature)=)[^\s&#\"'<>]+", rf"\1{HIDDEN}"),
        # REDISCLI_AUTH=x, "auth": "x", --auth x, -pw x
        (rf"((?<!\S)[\w.-]*{_PARTS}[\w.-]*=){_VALUE}\S*", rf"\1{HIDDEN}"),
        (rf"({_PARTS}[\w.-]*(?:[\"']?\s*(?:=>|:=|=)|[\"']\s*:)\s*){_VALUE}", rf"\1{HIDDEN}"),
        (rf"((?:^|[\s\"'])--?(?:\w+-)*(?:auth|pw)\s+)(?!-){_VALUE}", rf"\1{HIDDEN}"),
        # a whole word --password=x or KEY=x: what it is set to may hold any character but a space
        (rf"((?<!\S)[\w.-]*{_NAMES}[\w.-]*=){_VALUE}\S*", rf"\1{HIDDEN}"),
        # --password=x, KEY=x, key: x, "key": "x", {'key': 'x'}
        (rf"({_NAMES}[\w.-]*[\"']?\s*(?:=>|:=|=|:)\s*){_VALUE}", rf"\1{HIDDEN}"),
        # --password x, identified by x
        (rf"((?:^|[\s\"'])--?[\w-]*{_NAMES}[\w-]*\s+)(?!-)(?:{_VALUE})", rf"\1{HIDDEN}"),
        (rf"(\bidentified\s+by\s+){_VALUE}", rf"\1{HIDDEN}"),
        # ALTER USER x PASSWORD 'x'
        (rf"(\bpassword\s+){_QUOTED}", rf"\1{HIDDEN}"),
        # mysql -pSECRET (-p SECRET by mistake), redis-cli -a SECRET, sshpass -p SECRET, curl -u user:SECRET
        (rf"({_MYSQL}\b[^|;\n]*?\s(?-i:-p))(?:{_QUOTED}|[^\s\"']+)", rf"\1{HIDDEN}"),
        (rf"({_MYSQL}\b[^|;\n]*?\s(?-i:-p)\s+)(?!-){_VALUE}", rf"\1{HIDDEN}"),
        (rf"(\bredis-cli\b[^|;\n]*?\s-a\s*){_VALUE}", rf"\1{HIDDEN}"),
        (rf"(\bsshpass(?:\s+-[a-z]+)*?\s+(?-i:-p)\s*){_VALUE}", rf"\1{HIDDEN}"),
        (r"(\s(?:-u|--user[\s=]|--proxy-user[\s=])[\s=]*[^\s:\"'/]+:)[^\s\"']+", rf"\1{HIDDEN}"),
        # a key-like word shortly after a secret's name: `token is 3f2a…`, `secret 123e4567-e89b-…`
        (rf"({_NAMES}\b[^\w\n]{{1,3}}(?:\w{{1,6}}[^\w\n]{{1,3}}){{0,2}})(?=[\w-]*\d)[\w-]{{12,}}", rf"\1{HIDDEN}"),
    )
)


def clean(text: str) -> str:
    """One printable line: ANSI sequences, control and invisible characters and broken UTF-8 taken out or made visible."""
    return "".join(_visible(character) for character in _ANSI.sub("", text))


def _visible(character: str) -> str:
    if character in "\t\n\r\v\f\u2028\u2029\x85":
        return " "
    category = unicodedata.category(character)
    if category == "Cs":
        return "\ufffd"
    # Cf holds the marks that turn the direction of a line, and zero-width characters that split a word unseen.
    return "" if category in {"Cc", "Cf"} else character


def redact(line: str) -> str:
    """One line with secrets replaced by `***`, cleaned. Redacting twice changes nothing."""
    shown = clean(_shortened(line))
    while (hidden := _once(shown)) != shown:
        shown = hidden
    return shown


def _shortened(line: str) -> str:
    """The start of an over-long line, without the word that the cut went through: half a token is not recognised."""
    if len(line) <= LONGEST:
        return line
    return line[: LONGEST - 2].rpartition(" ")[0] + " …"


def _once(text: str) -> str:
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text
