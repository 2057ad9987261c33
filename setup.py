"""sweet-jax: SWEET-RL and ColBench in JAX/Flax."""

from setuptools import find_packages, setup

setup(
    name="sweet-jax",
    version="0.1.0",
    description="SWEET-RL and ColBench in JAX/Flax, TPU-native",
    long_description=open("README.md", encoding="utf-8").read(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["sweet_jax*", "models*", "colbench_env*", "launch*"]),
    package_data={
        "colbench_env": ["py.typed"],
        "colbench_env.adapters.openenv": ["*.json", "*.jsonl"],
        "colbench_env.prompts": ["*.txt"],
        "colbench_env.design": ["*.js"],
        "launch": ["py.typed"],
        "launch.reporting": ["templates/*"],
        "launch.training.presets": ["*.yaml"],
        "models": ["py.typed"],
        "sweet_jax": ["py.typed", "start_policy/*", "frontend_start_policy/*", "scenes_start_policy/*"],
    },
    entry_points={"console_scripts": ["colbench=colbench_env.__main__:main"]},
    install_requires=[
        "jax>=0.10.2",
        "flax>=0.12.8",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.8",
        "transformers>=5.23",
        "tokenizers>=0.22",
        "sentencepiece>=0.2.3",
        "safetensors>=0.8",
        "tensorflow-datasets>=4.9.10",
        "pyarrow>=21",  # which tensorflow-datasets brings, of no version that it names
        "importlib_resources>=6.5",  # tensorflow-datasets 4.9.10 imports it without asking for it
        "grain>=0.2.18",
        "numpy>=2.4",
        "jaxtyping>=0.3",
        "tyro>=1.0",
        "cattrs>=25.1",
        "tqdm>=4.67",
        "tensorboardX>=2.6",
        "jinja2>=3.1",
        "matplotlib>=3.10",
        "pygments>=2.19",
        "rich>=14.0",
        "requests>=2.32",
        "pyyaml>=6.0",
        "platformdirs>=4.3",
        "filelock>=3.20",  # with which jax bounds the size of its cache of compiled programs
    ],
    extras_require={
        "dev": [
            "pytest>=9.0",
            "pytest-timeout>=2.4",
            "pytest-xdist>=3.8",
            "hypothesis>=6.170",
            "beartype>=0.22",
            "torch>=2.13",
            "ruff>=0.14",
            "mypy>=2.0",
            "pre-commit>=4.0",
            "gymnasium>=1.4",
            "starlette>=1.0",
            "uvicorn>=0.50",
            "pydantic>=2.11",
            "openai>=2.0",
            "playwright>=1.60",  # the tests of launch.show and of the renderer drive an installed Chromium with it
            "pillow>=12.0",
            "scipy>=1.17",
            "mkdocs>=1.6,<2",  # the site is built by a test
            "uv>=0.9",  # the tests of colbench_env.adapters make an environment for each package with it
            "mkdocs-material>=9.7",
            "mkdocstrings[python]>=1.0",
            # libtpu, with which launch.plan compiles for TPUs that are not there
            "jax[tpu]>=0.10.2; sys_platform == 'linux' and platform_machine == 'x86_64'",
        ],
        "tpu": ["jax[tpu]>=0.10.2"],
        "cuda": ["jax[cuda13]>=0.10.2"],
        "cuda12": ["jax[cuda12]>=0.10.2"],  # drivers before 580
        "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.7", "mkdocstrings[python]>=1.0"],
        "serve": ["starlette>=1.0", "uvicorn>=0.50", "pydantic>=2.11"],
        "wandb": ["wandb>=0.31"],
        "mlflow": ["mlflow-skinny>=3.17", "sqlalchemy>=2.0", "alembic>=1.18"],  # or all of mlflow, which has the server
        "trackio": ["trackio>=0.43"],
        "openai": ["openai>=2.0"],
        "gym": ["gymnasium>=1.4"],
        "frontend": ["playwright>=1.60", "pillow>=12.0", "scipy>=1.17"],
    },
)
