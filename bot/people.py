"""Who somebody is and what a chat may see, by immutable ids from the settings; nobody is learnt in silence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot.chat.base import Address, Sender
from handlers.request import Person, Role, Room

if TYPE_CHECKING:
    from bot.settings import PersonSettings, Settings

STRANGER: Role = "stranger"


class People:
    """The settings' people and chats, looked up by a platform's ids."""

    def __init__(self, settings: Settings) -> None:
        """Index the accounts once."""
        self._settings = settings

    def person(self, platform: str, sender: Sender) -> Person:
        """Whose account this is; a stranger when the settings name nobody, or when it cannot be told who it is."""
        if not sender.anonymous:
            for name, one in self._settings.people.items():
                if _owns(name, one, platform, sender):
                    return Person(name, sender.shown or name, one.role, one.language)
        return Person(f"{platform}:{sender.account}", sender.shown, STRANGER)

    def room(self, address: Address, *, private: bool) -> Room | None:
        """The known chat at this address; a chat of two needs no entry (its person is looked at); else None."""
        best: Room | None = None
        for name, chat in self._settings.chats.items():
            if (chat.platform, chat.address) == (address.platform, address.chat):
                room = Room(name, address.platform, self._settings.seen_from(name), private)
                if chat.topic == address.thread:
                    return room
                best = best or room
        if best is None and private:
            return Room(f"{address.platform}:private", address.platform, tuple(self._settings.hosts), private=True)
        return best

    def language(self, room: Room | None, person: Person | None, *, private: bool) -> str:
        """A chat's language, in private the person's first, else the general one."""
        chat = self._settings.chats.get(room.id) if room else None
        own = person.language if person else None
        first, second = (own, chat and chat.language) if private else (chat and chat.language, None)
        return first or second or self._settings.language

    def toast_language(self, room: Room | None, person: Person) -> str:
        """A toast is seen by one person only: theirs first."""
        return person.language or self.language(room, person, private=False)

    def consoles(self) -> tuple[str, ...]:
        """The people who may speak at the console."""
        return tuple(name for name, one in self._settings.people.items() if one.console)


def _owns(name: str, one: PersonSettings, platform: str, sender: Sender) -> bool:
    match platform:
        case "telegram":
            return one.telegram == sender.account
        case "slack":
            # A user id alone is enough in the app's own workspace; a guest of another team has to be named with it.
            own = sender.account.rpartition("/")[2] if sender.home else None
            return one.slack is not None and one.slack in {sender.account, own}
        case _:
            return one.console and sender.account in {"console", f"console:{name}"}
