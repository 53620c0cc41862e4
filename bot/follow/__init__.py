"""Following a host's journal, over cuts and restarts of either side: two streams, one autopsy, one transaction a batch.

The kernel's, systemd's and the OOM daemons' lines come down one channel, the lines of the services' main processes down another,
so that no flood of the second can delay the first. Each has a cursor of its own, saved with what it led to.
"""

from bot.follow.follower import Follower

__all__ = ["Follower"]
