"""The chats: one file a platform; each renders a Reply and turns events into Requests."""
