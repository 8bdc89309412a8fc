"""What detector files say of shape and dtype: looking into them, sharing and remembering it."""
