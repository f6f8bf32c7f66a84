"""Put one clip's audio states into another clip's run."""

ENGINES = ("splice", "layer_batch", "rerun")  # ways of patching, fastest first

ALIGNMENTS = ("splice", "crop", "stretch")  # what becomes of a donor's span that is longer or shorter than the recipient's
