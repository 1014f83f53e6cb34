"""Packaging. Exact versions that are known to work together stand in constraints.txt."""

from pathlib import Path

from setuptools import find_packages, setup

CORE = [
    "jax>=0.10.2,<0.12",
    "flax>=0.12.8",
    "optax>=0.2.8",
    "orbax-checkpoint>=0.12.8",
    "grain>=0.2.18",
    "chex>=0.1.92",
    "einops>=0.8.2",
    "ml-collections>=1.1.0",
    "absl-py>=2.5.1",
    "numpy>=2.4",
    "ml-dtypes>=0.6.0",
    "safetensors>=0.8.0",
    "tokenizers>=0.23.3",
    "jinja2>=3.1.6",
    "tqdm>=4.70",
]
TORCH = ["torch==2.13.0", "transformers==5.23.0"]
EXTRAS = {
    "test": ["pytest>=9.2", "pytest-xdist>=3.8", "hypothesis>=6.170", "ruff>=0.17.6", "import-linter>=2.16"],
    "parity": TORCH,
    "benchmarks": [*TORCH, "psutil>=7.2"],
    "rl": ["reasoning-gym>=0.1.25,<0.2"],
    "grading": ["math-verify>=0.9,<0.10"],
    "serve": ["starlette>=1.10,<2", "uvicorn>=0.54,<1", "prometheus-client>=0.26,<1"],
    "serve-test": ["openai>=3.57,<4", "httpx2>=2.16,<3"],  # the tests of serving are skipped without it
    "hub": ["huggingface-hub>=2.4"],
    "plot": ["matplotlib>=3.11"],
    "parquet": ["pyarrow>=26"],
    "tensorboard": ["tensorboardx>=2.6.5"],
    "wandb": ["wandb>=0.31"],
    "aot": ["triton==3.6.0"],
    "cuda": ["jax[cuda12]>=0.10.2,<0.12"],
    "rocm": ["jax-rocm7-plugin==0.10.2", "jax-rocm7-pjrt==0.10.2"],
}
DATA = ["**/*.jinja", "**/*.json", "**/*.txt", "**/*.css", "**/*.js"]

setup(
    name="zaya_jax",
    version="0.1.0",
    description="ZAYA1 in JAX: load the released weights as they are, score, generate",
    long_description=(Path(__file__).parent / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.13",
    packages=find_packages(include=["zaya_jax", "zaya_jax.*", "kernels_pallas", "kernels_pallas.*"]),
    package_data={"zaya_jax": DATA, "kernels_pallas": DATA},
    install_requires=CORE,
    extras_require=EXTRAS,
    classifiers=[
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
    ],
)
