"""Other servers, with the same graph and the same tokenizer, beside ours."""
