"""What decides speed, the same for every contender, and how each is told."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
"""Folder of the package: where `dist` and `python-activities` are."""


_ROUNDING = 1e-9
"""Shares of a card add up with rounding errors."""


@dataclass(frozen=True)
class Settings:
    """One model on one machine; `engines` is the contender's own."""

    model: str
    """Folder of the model."""
    engines: int = 1
    dtype: str = "bfloat16"
    max_model_len: int = 2048
    max_num_seqs: int = 256
    gpu_share: float = 0.0
    """Share of each of its GPUs that one engine is placed on; 0 is the CPU."""
    tensor_parallel: int = 1
    """GPUs of one engine, which share each layer."""
    ranks: int = 0
    """Data-parallel ranks of those contenders that know any; 0 for as many as engines."""
    engine_args: dict[str, Any] = field(default_factory=dict[str, Any])
    """Further vLLM engine arguments; of the simulated backend, its own."""
    backend: str = "vllm"

    @staticmethod
    def read(file: Path) -> Settings:
        """Settings as `write` left them."""
        return Settings(**json.loads(file.read_text()))

    def write(self, file: Path) -> None:
        """Write them as JSON, for a contender's process."""
        file.write_text(json.dumps(asdict(self)))

    @property
    def name(self) -> str:
        """The model as request bodies name it."""
        return Path(self.model).name

    @property
    def all_ranks(self) -> int:
        """How many ranks there are."""
        return self.ranks or self.engines

    @property
    def gpus_per_engine(self) -> float:
        """What an engine takes of the GPUs of the machine."""
        return self.gpu_share * self.tensor_parallel

    @property
    def gpus(self) -> int:
        """Cards that the engines need together."""
        if self.tensor_parallel > 1:
            return self.engines * self.tensor_parallel
        return math.ceil(self.engines * self.gpu_share - _ROUNDING)

    def cards(self, engine: int) -> list[int]:
        """The cards of one engine, when each contender fills the first before it takes the next."""
        if self.tensor_parallel > 1:
            first = engine * self.tensor_parallel
            return list(range(first, first + self.tensor_parallel))
        return [engine // math.floor(1 / self.gpu_share + _ROUNDING)]

    def vllm_arguments(self) -> dict[str, Any]:
        """Keyword arguments of vLLM's engine classes."""
        cpu: dict[str, Any] = {"enforce_eager": True} if self.gpu_share == 0 else {}
        return {
            "model": self.model,
            "dtype": self.dtype,
            "max_model_len": self.max_model_len,
            "max_num_seqs": self.max_num_seqs,
            "served_model_name": self.name,
            **({"tensor_parallel_size": self.tensor_parallel} if self.tensor_parallel > 1 else {}),
            **cpu,
            **self.engine_args,
        }

    def vllm_flags(self) -> list[str]:
        """The same as command line flags."""
        flags: list[str] = []
        for name, value in self.vllm_arguments().items():
            flag = f"--{name.replace('_', '-')}"
            if value is True:
                flags.append(flag)
            else:
                flags += [flag, value if isinstance(value, str) else json.dumps(value)]
        return flags

    def engine_environment(self, engine: int) -> dict[str, str]:
        """Environment of one engine's process: on the CPU, its share of the cores."""
        common = {**os.environ, "USE_TF": "0", "HF_HUB_OFFLINE": "1"}
        if self.gpu_share > 0:
            return common | {"CUDA_VISIBLE_DEVICES": ",".join(map(str, self.cards(engine)))}
        cores = os.cpu_count() or 1
        share = max(1, cores // self.engines)
        first = engine * share % cores
        binding = str(first) if share == 1 else f"{first}-{first + share - 1}"
        return {
            **common,
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": binding,
        }
