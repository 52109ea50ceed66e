"""Notes on what earlier searches found; the words sent to a language model will live here too."""
