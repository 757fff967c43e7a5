"""What is Darknet's: its cfg files, weights files, dialects and random numbers."""
