"""Texts as sequences of symbols, and where the symbols lie."""
