"""A real 2 GB Debian 12 server in QEMU, for tests that need systemd and a kernel of their own."""
