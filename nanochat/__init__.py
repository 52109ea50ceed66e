"""The GPT substrate: model, text, training loop, validation and the optimizer that is evolved."""
