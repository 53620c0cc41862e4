"""The process: settings, start and stop, who may do what, alerts, approvals, the store, the chats."""
