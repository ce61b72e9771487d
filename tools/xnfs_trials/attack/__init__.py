"""The adversary: hostile sequences of system calls, and what the kernel must answer to each."""
