"""What a GPU is asked when one is at hand, in five minutes: `make gpu`. Each module of PARTS answers one question."""
