"""What uses a trained network: writing text, scoring it, adapting to it."""
