"""The one thing that pyproject.toml cannot say: models/ travels as the package triage_models."""

from setuptools import find_packages, setup

KINDS = ("json", "html", "css", "js", "svg", "txt", "mako")

setup(
    packages=[*find_packages(include=["triage", "triage.*"]), "triage_models"],
    package_dir={"triage_models": "models"},
    package_data={
        "triage": ["py.typed", *(f"**/*.{kind}" for kind in KINDS)],
        "triage_models": ["**/*"],
    },
)
