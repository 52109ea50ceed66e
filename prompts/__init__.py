"""The words sent to a language model, and notes on what others found before."""
