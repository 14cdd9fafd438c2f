"""Which images exist; the embedding store, ours and other labs'; the held-out split."""
