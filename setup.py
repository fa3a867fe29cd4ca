"""The one thing that pyproject.toml cannot say: models/ travels as the package triage_models."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["triage", "triage.*"]), "triage_models"],
    package_dir={"triage_models": "models"},
    package_data={
        "triage": ["py.typed", "**/*.json", "**/*.html", "**/*.css", "**/*.js", "**/*.mako"],
        "triage_models": ["**/*"],
    },
)
