"""Studies: variants are trained with several seeds, and compared on the same pictures."""
