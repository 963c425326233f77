"""From a name in an experiment to the class or function behind it.

A plain dict maps each known name to "module:factory", so that naming one imports nothing. Of a
factory's parameters the keyword-only ones are the options of its config section; the others are
given by the trainer. A name with a colon is a user's own factory: "my_file:MyHead" is `MyHead` in
`my_file.py`, relative to the working directory.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from train.components import user_code
from train.errors import TrainError

Factory = Callable[..., Any]


def find_factory(known: Mapping[str, str], name: str, kind: str) -> Factory:
    """The factory that `name` means. Raises TrainError, with the list of known names, if none."""
    target = known.get(name, name)
    if ":" not in target:
        raise TrainError(
            f"unknown {kind} {name!r}{did_you_mean(name, known)}; known: "
            f"{', '.join(sorted(known))}, or your own as my_file:MyClass"
        )
    module_name, _, attribute = target.partition(":")
    module = importlib.import_module(module_name) if name in known else user_module(module_name)
    factory: Factory | None = getattr(module, attribute, None)
    if not callable(factory):
        raise TrainError(f"{kind} {name!r}: {module.__file__} has no class or function {attribute}")
    return factory


def user_file(name: str) -> Path | None:
    """The file behind a user's own name ("my_file:MyHead"), or None for a known name."""
    module, colon, _ = name.partition(":")
    return Path.cwd() / (module.replace(".", "/") + ".py") if colon else None


def user_module(module_name: str) -> ModuleType:
    """Import a user's file by its path, so that no installed module of that name is taken."""
    path = user_file(module_name + ":")
    assert path is not None
    if not path.is_file():
        raise TrainError(f"{module_name}: no file {path}; expected it relative to {Path.cwd()}")
    unique = user_code.module_name(module_name)
    spec = importlib.util.spec_from_file_location(unique, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[unique] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        if told := user_code.users_error(error):
            raise told from error
        raise
    return module


def options_of(factory: Factory) -> dict[str, tuple[Any, Any]]:
    """Options of a factory: name -> (type, default); the default is `inspect.Parameter.empty`
    where a value is required. A class that hands `**options` on has those of the class it
    extends, too."""
    hinted = factory.__init__ if inspect.isclass(factory) else factory
    try:
        types = typing.get_type_hints(hinted, include_extras=True)
    except (NameError, TypeError) as error:
        raise TrainError(f"{factory.__qualname__}: annotations cannot be read: {error}") from None
    parameters = inspect.signature(factory).parameters
    hands_on = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    inherited = options_of(factory.__mro__[1]) if inspect.isclass(factory) and hands_on else {}
    return inherited | {
        name: (types.get(name, Any), parameter.default)
        for name, parameter in parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def takes(factory: Factory, name: str) -> bool:
    """Whether the trainer has to give the factory this parameter."""
    parameter = inspect.signature(factory).parameters.get(name)
    return parameter is not None and parameter.kind is not inspect.Parameter.KEYWORD_ONLY


def accepts(factory: Factory, parameter: str) -> tuple[type, ...]:
    """The types that a parameter's annotation names; none where it has no annotation."""
    hints = typing.get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    hint = hints.get(parameter)
    kinds = typing.get_args(hint) or ((hint,) if hint is not None else ())
    return tuple(kind for kind in kinds if isinstance(kind, type) and kind is not type(None))


def did_you_mean(name: str, known: typing.Iterable[str]) -> str:
    """A hint for a misspelt name, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""
