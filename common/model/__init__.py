"""An audio language model, its prompt, its input and its answer."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelChoice:
    """Which model is asked for, and how it is to run: the options of the command line, "auto" where they leave it open."""

    name: str
    device: str = "auto"
    dtype: str = "auto"
    attention: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    quantization: str | None = None  # to how many bits its weights are brought as they are read: 4bit or 8bit
    device_map: str | None = None  # how one process spreads it over several devices
    trim: bool = False  # clips are heard without the silence at their ends
    level: float | None = None  # and all at this one, in dB of full scale
