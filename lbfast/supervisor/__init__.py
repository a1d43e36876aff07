"""The process that forks: listening sockets, shared memory, the life of every other process."""
