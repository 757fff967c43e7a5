"""What turns a network, a text or a run into something to look at."""
