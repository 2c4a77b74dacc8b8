"""What may say before a training which layer of a language model helps an encoder."""
