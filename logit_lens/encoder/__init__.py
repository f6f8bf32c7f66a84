"""From the encoder to the answer: what can be decoded of words and voice at each stage that the audio passes."""
