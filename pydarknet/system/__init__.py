"""What the operating system gives: whole files, locks, memory, threads."""
