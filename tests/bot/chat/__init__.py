"""The chats, each against a strict emulator of its platform."""
