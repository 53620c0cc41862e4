"""What Slack refuses in Block Kit, and what a person sees of it.

Limits: docs.slack.dev/reference/block-kit; the sum of all blocks is undocumented
(github.com/slackapi/bolt-js/issues/2509). Wording of errors follows real answers.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

BLOCKS_MAX = 50
ALL_BLOCKS_CHARS_MAX = 13_200
MARKDOWN_CHARS_MAX = 12_000
ID_CHARS_MAX = 255

Json = Mapping[str, Any]

_PING = re.compile(r"<(?:!(?:channel|here|everyone)|!subteam\^[A-Z0-9]+|@[UW][A-Z0-9]+)(?:\|[^<>]*)?>")
_BARE_PING = re.compile(r"(?<!\w)@(?:channel|here|everyone)\b")
_CONTROL = re.compile(r"<([^<>]+)>")
_CODE = re.compile(r"(```.*?```|`[^`\n]+`)", re.DOTALL)
_STYLE = re.compile(r"(?<![\w*_~])([*_~])(?=\S)([^\n]*?\S)\1(?![\w*_~])")


def pings_in(mrkdwn: str, *, link_names: bool = False) -> list[str]:
    """The control sequences that would notify people, as they stand in the text."""
    found = _PING.findall(mrkdwn)
    return found + (_BARE_PING.findall(mrkdwn) if link_names else [])


def masked_links_in(mrkdwn: str) -> list[str]:
    """Links whose label hides where they lead."""
    return [inner for inner in _CONTROL.findall(mrkdwn) if "|" in inner and inner[0] not in "!@#"]


def seen(mrkdwn: str) -> str:
    """Mrkdwn as a person sees it: without marks, links by their label, entities resolved."""
    parts = _CODE.split(mrkdwn)
    for place, part in enumerate(parts):
        text = part.strip("`") if place % 2 else _unstyled(part)
        parts[place] = _CONTROL.sub(_control_seen, text)
    return unescape("".join(parts))


def unescape(text: str) -> str:
    """The three entities that Slack knows, back to characters."""
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def escape(text: str) -> str:
    """The three characters that Slack escapes."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _unstyled(text: str) -> str:
    while (plain := _STYLE.sub(r"\2", text)) != text:
        text = plain
    return text


def _control_seen(match: re.Match[str]) -> str:
    target, _, label = match[1].partition("|")
    if label:
        return label
    if target.startswith("!"):
        return "@" + target[1:].partition("^")[0]
    return target


@dataclass(frozen=True)
class Button:
    """A button of a message, as shown and as sent back when pressed."""

    label: str
    action_id: str
    value: str | None
    style: str | None
    confirm: Json | None
    block_id: str
    url: str | None
    element: Json


def is_text(value: object) -> bool:
    """Whether the value looks like a text object."""
    return isinstance(value, Mapping) and value.get("type") in ("plain_text", "mrkdwn")


def text_seen(text: Json) -> str:
    """A text object as a person sees it."""
    raw = str(text.get("text", ""))
    return seen(raw) if text.get("type") == "mrkdwn" else raw


def walk(value: object) -> Iterator[Json]:
    """Every object inside blocks, outermost first."""
    if isinstance(value, Mapping):
        yield value
        for inner in value.values():
            yield from walk(inner)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for inner in value:
            yield from walk(inner)


def block_pings(blocks: Sequence[Json]) -> list[str]:
    """What in the blocks would notify people: control sequences in mrkdwn, and rich text made to mention."""
    found: list[str] = []
    for part in walk(blocks):
        match part.get("type"):
            case "mrkdwn" | "markdown":
                found += pings_in(str(part.get("text", "")))
            case "broadcast":
                found.append(f"<!{part.get('range')}>")
            case "user":
                found.append(f"<@{part.get('user_id')}>")
            case "usergroup":
                found.append(f"<!subteam^{part.get('usergroup_id')}>")
    return found


def block_links(blocks: Sequence[Json]) -> list[str]:
    """Masked links in the blocks' mrkdwn."""
    texts = (str(part.get("text", "")) for part in walk(blocks) if part.get("type") == "mrkdwn")
    return [link for text in texts for link in masked_links_in(text)]


def buttons_in(blocks: Sequence[Json]) -> list[Button]:
    """The buttons of the blocks, in order."""
    return [
        _button(element, str(block.get("block_id", "")))
        for block in blocks
        for element in walk(block)
        if element.get("type") == "button"
    ]


def _button(element: Json, block_id: str) -> Button:
    return Button(
        label=str(element["text"]["text"]),
        action_id=str(element.get("action_id", "")),
        value=element.get("value"),
        style=element.get("style"),
        confirm=element.get("confirm"),
        block_id=block_id,
        url=element.get("url"),
        element=element,
    )


def blocks_seen(blocks: Sequence[Json]) -> str:
    """Blocks as a person reads them, one line a part, buttons as `[label]`."""
    return "\n".join(line for block in blocks if (line := _block_seen(block)))


def _block_seen(block: Json) -> str:
    draw = _SEEN.get(str(block.get("type")))
    return draw(block) if draw else f"({block.get('alt_text') or block.get('type')})"


def _elements_seen(block: Json) -> str:
    return " ".join(_element_seen(element) for element in block["elements"])


def _rows_seen(block: Json) -> str:
    return "\n".join(" | ".join(_cell_seen(cell) for cell in row) for row in block["rows"])


def _text_block_seen(block: Json) -> str:
    text = block.get("text", "")
    return text_seen(text) if is_text(text) else str(text)


def _section_seen(block: Json) -> str:
    texts = ([block["text"]] if "text" in block else []) + list(block.get("fields", []))
    lines = [text_seen(text) for text in texts]
    if "accessory" in block:
        lines.append(_element_seen(block["accessory"]))
    return "\n".join(lines)


def _element_seen(element: Json) -> str:
    if is_text(element):
        return text_seen(element)
    if element.get("type") == "image":
        return f"({element.get('alt_text', '')})"
    text = element.get("text") or element.get("placeholder") or {}
    return f"[{text_seen(text) or element.get('type')}]"


def _rich_seen(element: Json) -> str:
    draw = _RICH_SEEN.get(str(element.get("type")))
    return draw(element) if draw else "".join(_rich_seen(inner) for inner in element.get("elements", []))


_RICH_SEEN: dict[str, Callable[[Json], str]] = {
    "rich_text_list": lambda part: "\n".join("• " + _rich_seen(item) for item in part["elements"]),
    "text": lambda part: str(part["text"]),
    "link": lambda part: str(part.get("text") or part["url"]),
    "emoji": lambda part: f":{part['name']}:",
    "broadcast": lambda part: f"@{part['range']}",
    "user": lambda part: f"@{part['user_id']}",
    "date": lambda part: str(part.get("fallback") or part["format"]),
}

_SEEN: dict[str, Callable[[Json], str]] = {
    "section": _section_seen,
    "header": lambda block: text_seen(block["text"]),
    "context": _elements_seen,
    "actions": _elements_seen,
    "rich_text": lambda block: "\n".join(_rich_seen(element) for element in block["elements"]),
    "table": _rows_seen,
    "data_table": _rows_seen,
    "markdown": _text_block_seen,
    "alert": _text_block_seen,
    "divider": lambda _: "———",
}


def _cell_seen(cell: Json) -> str:
    if "elements" in cell:
        return "".join(_rich_seen(inner) for inner in cell["elements"])
    return str(cell.get("text", cell.get("value", "")))


@dataclass
class Problems:
    """What is wrong with blocks, worded and pointed at as Slack does."""

    found: list[str] = field(default_factory=list)

    def add(self, what: str, where: str) -> None:
        """Note a problem at a JSON pointer."""
        self.found.append(f"{what} [json-pointer:{where}]")

    def text(self, value: object, limit: int, where: str, *, plain: bool = False) -> None:
        """Check a text object of at most `limit` characters."""
        if not isinstance(value, Mapping) or not is_text(value) or (plain and value["type"] != "plain_text"):
            self.add("must be a valid text object" if not plain else "must be a plain_text object", where)
            return
        other = {"plain_text": "emoji", "mrkdwn": "verbatim"}[value["type"]]
        self.keys(value, {"type", "text", other}, where)
        self.string(value.get("text"), limit, f"{where}/text")

    def string(self, value: object, limit: int, where: str, *, least: int = 1) -> None:
        """Check a string of `least` to `limit` characters."""
        if not isinstance(value, str):
            self.add("must be a string", where)
        elif len(value) < least:
            self.add(f"must be more than {least - 1} characters", where)
        elif len(value) > limit:
            self.add(f"must be less than {limit + 1} characters", where)

    def keys(self, value: Json, allowed: AbstractSet[str], where: str) -> None:
        """Refuse properties that nobody knows."""
        for key in value.keys() - allowed:
            self.add(f"invalid additional property: {key}", where)

    def items(self, value: object, limit: int, where: str, *, least: int = 1) -> list[Json]:
        """Check a list of objects; gives those that can be looked into."""
        if not isinstance(value, list):
            self.add("must be an array", where)
            return []
        if len(value) < least:
            self.add(f"no fewer than {least} items allowed", where)
        if len(value) > limit:
            self.add(f"no more than {limit} items allowed", where)
        for place, item in enumerate(value):
            if not isinstance(item, Mapping):
                self.add("must be an object", f"{where}/{place}")
        return [item if isinstance(item, Mapping) else {} for item in value]

    def required(self, value: Json, name: str, where: str) -> bool:
        """Whether the property is there; noted when not."""
        if name not in value:
            self.add(f"missing required field: {name}", where)
        return name in value


def problems_of(blocks: Sequence[Json]) -> list[str]:
    """Everything Slack would refuse in the blocks of a message; empty when they are fine."""
    problems = Problems()
    items = problems.items(list(blocks), BLOCKS_MAX, "/blocks", least=0)
    for place, block in enumerate(items):
        _check_block(problems, block, f"/blocks/{place}")
    _check_ids(problems, items)
    for kind, most in (("table", 1), ("data_visualization", 2)):
        if sum(block.get("type") == kind for block in items) > most:
            problems.add(f"only {most} {kind} block(s) allowed in a message", "/blocks")
    if sum(len(str(block.get("text", ""))) for block in items if block.get("type") == "markdown") > MARKDOWN_CHARS_MAX:
        problems.add(f"markdown blocks must be less than {MARKDOWN_CHARS_MAX + 1} characters in all", "/blocks")
    return problems.found


def chars_in(blocks: Sequence[Json]) -> int:
    """The size that Slack's limit on all blocks is about, characters of their JSON's strings that are shown or kept."""
    return sum(_chars(part) for part in walk(blocks))


def _chars(part: Json) -> int:
    return sum(len(value) for key, value in part.items() if key in ("text", "value", "alt_text") and isinstance(value, str))


def _check_ids(problems: Problems, blocks: Sequence[Json]) -> None:
    taken: set[str] = set()
    for place, block in enumerate(blocks):
        block_id = block.get("block_id")
        if block_id is None:
            continue
        where = f"/blocks/{place}/block_id"
        problems.string(block_id, ID_CHARS_MAX, where)
        if isinstance(block_id, str) and block_id in taken:
            problems.add(f"`block_id` {block_id} already exists", where)
        taken.add(str(block_id))


def _check_block(problems: Problems, block: Json, where: str) -> None:
    kind = block.get("type")
    check = _BLOCKS.get(kind) if isinstance(kind, str) else None
    if check is None:
        problems.add(f"unsupported type: {kind}", f"{where}/type")
        return
    problems.keys(block, check.keys | {"type", "block_id"}, where)
    check.check(problems, block, where)


def _check_section(problems: Problems, block: Json, where: str) -> None:
    if "text" not in block and "fields" not in block:
        problems.add("missing required field: text", where)
    if "text" in block:
        problems.text(block["text"], 3000, f"{where}/text")
    if "fields" in block:
        for place, text in enumerate(problems.items(block["fields"], 10, f"{where}/fields")):
            problems.text(text, 2000, f"{where}/fields/{place}")
    if "accessory" in block:
        _check_element(problems, block["accessory"], f"{where}/accessory")


def _check_header(problems: Problems, block: Json, where: str) -> None:
    if problems.required(block, "text", where):
        problems.text(block["text"], 150, f"{where}/text", plain=True)


def _check_context(problems: Problems, block: Json, where: str) -> None:
    if not problems.required(block, "elements", where):
        return
    for place, element in enumerate(problems.items(block["elements"], 10, f"{where}/elements")):
        at = f"{where}/elements/{place}"
        if element.get("type") == "image":
            _check_image(problems, element, at)
        else:
            problems.text(element, 2000, at)


def _check_actions(problems: Problems, block: Json, where: str) -> None:
    if not problems.required(block, "elements", where):
        return
    taken: set[str] = set()
    for place, element in enumerate(problems.items(block["elements"], 25, f"{where}/elements")):
        at = f"{where}/elements/{place}"
        _check_element(problems, element, at)
        action_id = str(element.get("action_id", f"\0{place}"))
        if action_id in taken:
            problems.add(f"`action_id` {action_id} already exists", f"{at}/action_id")
        taken.add(action_id)


def _check_element(problems: Problems, element: Json, where: str) -> None:
    if "action_id" in element:
        problems.string(element["action_id"], ID_CHARS_MAX, f"{where}/action_id")
    match element.get("type"):
        case "button":
            _check_button(problems, element, where)
        case "overflow":
            _check_options(problems, element, 5, where, least=1)
        case "static_select":
            _check_options(problems, element, 100, where, least=1)
        case "image":
            _check_image(problems, element, where)
        case other:
            problems.add(f"unsupported type: {other}", f"{where}/type")


def _check_button(problems: Problems, button: Json, where: str) -> None:
    known = {"type", "text", "action_id", "url", "value", "style", "confirm", "accessibility_label"}
    problems.keys(button, known, where)
    if problems.required(button, "text", where):
        problems.text(button["text"], 75, f"{where}/text", plain=True)
    for name, limit in (("value", 2000), ("url", 3000), ("accessibility_label", 75)):
        if name in button:
            problems.string(button[name], limit, f"{where}/{name}")
    if button.get("style") not in (None, "primary", "danger"):
        problems.add("must be one of: primary, danger", f"{where}/style")
    if "confirm" in button:
        _check_confirm(problems, button["confirm"], f"{where}/confirm")


def _check_confirm(problems: Problems, confirm: Json, where: str) -> None:
    problems.keys(confirm, {"title", "text", "confirm", "deny", "style"}, where)
    for name, limit, plain in (("title", 100, True), ("text", 300, False), ("confirm", 30, True), ("deny", 30, True)):
        if problems.required(confirm, name, where):
            problems.text(confirm[name], limit, f"{where}/{name}", plain=plain)


def _check_options(problems: Problems, element: Json, limit: int, where: str, *, least: int) -> None:
    if "option_groups" in element:
        return
    for place, option in enumerate(problems.items(element.get("options"), limit, f"{where}/options", least=least)):
        at = f"{where}/options/{place}"
        if problems.required(option, "text", at):
            problems.text(option["text"], 75, f"{at}/text")
        problems.string(option.get("value"), 150, f"{at}/value")
    if "confirm" in element:
        _check_confirm(problems, element["confirm"], f"{where}/confirm")


def _check_image(problems: Problems, image: Json, where: str) -> None:
    if "image_url" not in image and "slack_file" not in image:
        problems.add("missing required field: image_url", where)
    if problems.required(image, "alt_text", where):
        problems.string(image["alt_text"], 2000, f"{where}/alt_text")


_RICH_CONTAINERS = {"rich_text_section", "rich_text_preformatted", "rich_text_quote", "rich_text_list"}
_RICH_LEAVES = {"text", "link", "emoji", "user", "usergroup", "channel", "broadcast", "color", "date"}


def _check_rich_text(problems: Problems, block: Json, where: str) -> None:
    if not problems.required(block, "elements", where):
        return
    for place, element in enumerate(problems.items(block["elements"], 1000, f"{where}/elements", least=0)):
        at = f"{where}/elements/{place}"
        if element.get("type") not in _RICH_CONTAINERS:
            problems.add(f"unsupported type: {element.get('type')}", f"{at}/type")
        else:
            _check_rich_container(problems, element, at)


def _check_rich_container(problems: Problems, element: Json, where: str) -> None:
    leaves = {"rich_text_section"} if element["type"] == "rich_text_list" else _RICH_LEAVES
    if not problems.required(element, "elements", where):
        return
    for place, leaf in enumerate(problems.items(element["elements"], 10_000, f"{where}/elements", least=0)):
        at = f"{where}/elements/{place}"
        if leaf.get("type") not in leaves:
            problems.add(f"unsupported type: {leaf.get('type')}", f"{at}/type")
        elif leaf["type"] == "text":
            problems.string(leaf.get("text"), 13_200, f"{at}/text")
        elif leaf["type"] == "rich_text_section":
            _check_rich_container(problems, leaf, at)


def _check_table(problems: Problems, block: Json, where: str) -> None:
    _check_rows(problems, block, where, least=1)


def _check_data_table(problems: Problems, block: Json, where: str) -> None:
    _check_rows(problems, block, where, least=2, limit=201)
    if chars_in([block]) > 20_000:
        problems.add("must be less than 20001 characters", f"{where}/rows")


def _check_rows(problems: Problems, block: Json, where: str, *, least: int, limit: int = 100) -> None:
    rows = block.get("rows")
    if not isinstance(rows, list) or not least <= len(rows) <= limit:
        problems.add(f"must have {least} to {limit} rows", f"{where}/rows")
        return
    for number, row in enumerate(rows):
        for place, cell in enumerate(problems.items(row, 20, f"{where}/rows/{number}")):
            if cell.get("type") not in ("raw_text", "raw_number", "rich_text"):
                problems.add(f"unsupported type: {cell.get('type')}", f"{where}/rows/{number}/{place}/type")


def _check_markdown(problems: Problems, block: Json, where: str) -> None:
    problems.string(block.get("text"), MARKDOWN_CHARS_MAX, f"{where}/text")


def _check_alert(problems: Problems, block: Json, where: str) -> None:
    if problems.required(block, "text", where):
        problems.text(block["text"], 200, f"{where}/text")


def _check_chart(problems: Problems, block: Json, where: str) -> None:
    problems.required(block, "title", where)


def _check_nothing(problems: Problems, block: Json, where: str) -> None:
    """A block of its type alone."""


@dataclass(frozen=True)
class _Block:
    keys: frozenset[str]
    check: Callable[[Problems, Json, str], None]


def _known(keys: str, check: Callable[[Problems, Json, str], None]) -> _Block:
    return _Block(frozenset(keys.split()), check)


_BLOCKS: dict[str, _Block] = {
    "section": _known("text fields accessory expand", _check_section),
    "header": _known("text level", _check_header),
    "context": _known("elements", _check_context),
    "actions": _known("elements", _check_actions),
    "divider": _known("", _check_nothing),
    "image": _known("image_url slack_file alt_text title", _check_image),
    "rich_text": _known("elements", _check_rich_text),
    "table": _known("rows column_settings", _check_table),
    "data_table": _known("rows columns page_size caption column_settings", _check_data_table),
    "data_visualization": _known("title chart", _check_chart),
    "markdown": _known("text", _check_markdown),
    "alert": _known("text level", _check_alert),
}


def parsed_blocks(raw: object) -> list[dict[str, Any]] | None:
    """Blocks from a JSON string or a list; None when they are neither."""
    if isinstance(raw, str):
        try:
            raw = json.loads(raw)
        except ValueError:
            return None
    if not isinstance(raw, list) or not all(isinstance(block, dict) for block in raw):
        return None
    return raw
