"""Choose device, dtype and quantization, and check that the weights fit."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from common import processes
from common.errors import InputError, first_line

_FREE_SHARE = 0.85  # of a GPU's free memory may go to weights; the rest is for the work
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str) -> torch.device:
    """Return the device `name`, for "auto" the first of cuda, mps, cpu. Raises InputError for one that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    name = processes.own_device(name)
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises AssertionError where it is built without CUDA
        raise InputError(
            f"--device {name}: not usable here ({first_line(error)}); allowed: auto, cpu, cuda, cuda:N, mps"
        ) from None
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype `name`; "auto" is bfloat16 on a CUDA device, float16 where it has none (before Ampere), else float32."""
    if name != "auto":
        return DTYPES[name]
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")


def read_device_map(given: str | None) -> str | dict[str, Any] | None:
    """Return a device map as accelerate takes it: one of DEVICE_MAPS, or a JSON file that names the device of each module.

    Raises InputError for anything else, and where several processes would each spread a model.
    """
    if given is None:
        return None
    if processes.count() > 1:
        raise InputError(
            f"--device-map {given}: spreads one model over several GPUs, for one process; {processes.count()} processes were "
            "started, each with a model of its own: start one, or leave --device-map out"
        )
    if given in DEVICE_MAPS:
        return given
    try:
        devices = json.loads(Path(given).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        allowed = f"allowed: {', '.join(DEVICE_MAPS)}, or a JSON file of modules and their devices"
        raise InputError(f"--device-map {given}: cannot be read ({first_line(error)}); {allowed}") from None
    if not isinstance(devices, dict):
        raise InputError(f"--device-map {given}: holds no object of modules and their devices")
    return devices


def read_quantization(name: str | None, device: torch.device, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    """Return how bitsandbytes is to quantise weights as they are read. Raises InputError where it or a CUDA GPU is not there."""
    if name is None:
        return None
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(f"--quantization {name}: needs bitsandbytes, which is not installed (pip install bitsandbytes)")
    if device.type != "cuda":
        raise InputError(f"--quantization {name}: needs a CUDA GPU, and this run is on {device}")
    return quantization_config(name, dtype)


def quantization_config(name: str, dtype: torch.dtype) -> BitsAndBytesConfig:
    """Return the settings of "4bit" and "8bit"; products of 4-bit weights are computed in `dtype`."""
    if name == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def quantised(model: Any) -> str:
    """Say how a model's weights are quantised, by --quantization or in its checkpoint; "" where they are not."""
    settings = getattr(model.config, "quantization_config", None)
    if settings is None:
        return ""
    known = settings if isinstance(settings, dict) else settings.to_dict()
    bits = "4 bits" if known.get("load_in_4bit") else "8 bits" if known.get("load_in_8bit") else ""
    return ", ".join(filter(None, (str(getattr(known.get("quant_method"), "value", known.get("quant_method"))), bits)))


def spread_over(
    model_class: Any,
    config: Any,
    dtype: torch.dtype,
    device: torch.device,
    trust_remote_code: bool = False,
    quantization: BitsAndBytesConfig | None = None,
) -> str | dict[str, str] | None:
    """Return the device map of a CUDA device: weights go straight there, or "auto" where they do not fit; else None."""
    if device.type != "cuda":
        return None
    needed = weight_bytes(model_class, config, dtype, trust_remote_code=trust_remote_code)
    if quantization is not None:
        needed //= dtype.itemsize * (2 if quantization.load_in_4bit else 1)
    if needed < _FREE_SHARE * torch.cuda.mem_get_info(device)[0]:
        return {"": f"cuda:{device.index or 0}"}
    if processes.count() > 1:
        raise InputError("the model does not fit one GPU: start one process, and it is spread over all of them")
    return "auto"


def weight_bytes(model_class: Any, config: Any, dtype: torch.dtype, *, trust_remote_code: bool = False) -> int:
    """Return how many bytes the model's weights take in `dtype`, without making them."""
    model = bare_model(model_class, config, dtype, trust_remote_code=trust_remote_code)
    return sum(p.numel() for p in model.parameters()) * dtype.itemsize


def bare_model(
    model_class: Any, config: Any, dtype: torch.dtype, *, attention: str | None = None, trust_remote_code: bool = False
) -> Any:
    """Return the model with all its parts and no weights: its tensors have shapes and dtypes, and take no memory."""
    own = {"trust_remote_code": trust_remote_code} if hasattr(model_class, "from_config") else {}  # an Auto class
    make = model_class.from_config if own else model_class._from_config
    with torch.device("meta"):
        return make(config, dtype=dtype, attn_implementation=attention, **own)
