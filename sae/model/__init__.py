"""The SAE: rules, weights, start values, our own folder."""
