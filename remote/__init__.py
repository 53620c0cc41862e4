"""The servers: reach them, read them, judge them, mend them. Knows nothing of chats."""
