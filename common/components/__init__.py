"""Read and patch single heads, attentions and MLPs of a block."""
