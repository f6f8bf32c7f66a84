"""The sentences of the demo clips and of the reference model's training.

Rules: 6-12 words, one full stop (an exclamation mark would change the synthetic voice), about 11 syllables; surprise is a
violated expectation, not an exclamation. An explicit sentence names the feeling, an implicit one never does; neutral
sentences are daily chores.
"""

from itertools import product

from common.clips.manifest import LABELS

# Demo sentences by semantic label; of the four feelings the first five name the feeling, the last five do not.
DEMO: dict[str, tuple[str, ...]] = {
    "neutral": (
        "I put the clean plates back on the kitchen shelf.",
        "The bus to the station leaves at half past four.",
        "She wrote the date at the top of the page.",
        "We need some milk and bread from the corner shop.",
        "The meeting is in the room beside the stairs.",
        "He folded the towels and placed them in the drawer.",
        "The green folder belongs on the second desk.",
        "They water the plants every Tuesday and Friday.",
        "I parked the car across from the library.",
        "The printer takes paper from the lower tray.",
    ),
    "happy": (
        "I am so happy that we finally found a home.",
        "It fills me with joy to see you all today.",
        "I feel delighted with the way it turned out.",
        "We were thrilled when she said yes to the plan.",
        "I am glad and cheerful about our new life.",
        "We won the final and the whole town is dancing.",
        "My sister had her baby and both are doing well.",
        "I got the job that I dreamed of for years.",
        "The sun is out and all my friends are coming.",
        "This is the best birthday I have ever had.",
    ),
    "sad": (
        "I feel so sad that I can hardly speak today.",
        "She is miserable since her best friend moved.",
        "My heart is heavy with sorrow this winter.",
        "I am lonely and full of grief in this house.",
        "We were heartbroken when they closed the school.",
        "Grandpa passed away before I could say goodbye.",
        "I sit alone at the table where we used to eat.",
        "The old dog still waits for someone who is gone.",
        "Nobody came to visit me in the hospital.",
        "I cried all night beside the empty cradle.",
    ),
    "angry": (
        "I am angry that you broke your word again.",
        "It makes me furious when they treat us like this.",
        "I am outraged by the way you spoke to her.",
        "He is so mad at you for losing the keys.",
        "I am full of rage at what you did to us.",
        "Get out of my house and never come back here.",
        "You lied to my face and stole all my money.",
        "How dare you blame me for your own mistake.",
        "Stop shouting at my kids and leave us alone.",
        "You broke my door and you will pay for it.",
    ),
    "surprised": (
        "I am surprised to see snow in the desert.",
        "We are amazed that the cat came back by train.",
        "It astonished me that the quiet boy could sing.",
        "I was stunned to learn that my boss is a spy.",
        "It is a surprise that the lake is pink today.",
        "I opened the box and there was a live parrot.",
        "The magician vanished right in front of our eyes.",
        "I had no idea that you were hiding in here.",
        "I expected rain and it started raining frogs.",
        "That little kitten weighs more than my big dog.",
    ),
}

# Training only: every word of feeling meets every frame, so that the frame says nothing about the label.
_FEELING: dict[str, tuple[str, ...]] = {
    "neutral": ("regular", "ordinary", "standard", "usual", "scheduled"),
    "happy": ("happy", "joyful", "delighted", "thrilled", "cheerful"),
    "sad": ("sad", "miserable", "sorrowful", "lonely", "heartbroken"),
    "angry": ("angry", "furious", "outraged", "mad", "hateful"),
    "surprised": ("surprised", "amazed", "astonished", "stunned", "shocked"),
}
_FRAMES = (
    "We got a {} letter from the office today.",
    "This is a very {} answer to the question.",
    "They sent us a {} message after dinner.",
    "There was a {} woman at the door again.",
    "Your brother gave me a {} look in the kitchen.",
    "It was a {} evening in our little town.",
    "I wrote a {} note to the people next door.",
    "She read the {} story to all of my friends.",
)


def training_texts() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return (trained, held_out) lists of (text, semantic_label) beside the demo sentences.

    Held out is one frame in eight for each word of feeling, another frame for each word: every held-out text is new, though
    its word and its frame have both been heard.
    """
    trained: list[tuple[str, str]] = []
    held_out: list[tuple[str, str]] = []
    for label_index, label in enumerate(LABELS):
        for word_index, frame_index in product(range(5), range(len(_FRAMES))):
            word = _FEELING[label][word_index]
            text = _FRAMES[frame_index].format(word)
            if word[0] in "aeiou":
                text = text.replace(" a " + word, " an " + word)
            is_held_out = frame_index == (label_index + word_index) % len(_FRAMES)
            (held_out if is_held_out else trained).append((text, label))
    return trained, held_out
