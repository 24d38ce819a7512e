"""The reference of the public Python interface, from signatures, docstrings and the texts below fields."""

import ast
import dataclasses
import inspect
import re
import textwrap
import typing
from pathlib import PurePath

from blocks import table
from commands import NOTE, _cell, _code

import unstill
from unstill import kernels

SECTIONS = ("Args", "Returns", "Yields", "Raises", "Attributes")


def page() -> str:
    """docs/reference/api.md."""
    parts = [
        NOTE,
        "# Python interface",
        "These names are public; everything else may change between versions. They are loaded on first use, so "
        "`import unstill` is light.",
        "    from unstill import AugmentConfig, ClipConfig, ClipLoader, evaluate, load_model, train",
    ]
    for name in unstill.__all__:
        parts += _entry(f"unstill.{name}", getattr(unstill, name))
    parts += [
        "## Kernels",
        "Ops for tensors on any device, Triton on CUDA and plain torch elsewhere; they may change between versions.",
    ]
    for name in sorted(kernels.__all__):
        parts += _entry(f"unstill.kernels.{name}", getattr(kernels, name), level=3)
    return "\n\n".join(parts) + "\n"


def _entry(name: str, thing: object, level: int = 2) -> list[str]:
    parts = [f"{'#' * level} {name}"]
    if inspect.isclass(thing) and dataclasses.is_dataclass(thing):
        parts += [_text(inspect.getdoc(thing) or ""), _fields(thing)]
        return [part for part in parts if part]
    parts += [_signature(name.rpartition(".")[2], thing), _text(inspect.getdoc(thing) or "")]
    if inspect.isclass(thing) and not issubclass(thing, BaseException):
        for member, function in vars(thing).items():
            public = not member.startswith("_") and inspect.getdoc(function)
            if public and isinstance(function, property):
                parts.append(f"**`{member}`** {_text(inspect.getdoc(function) or '')}")
            elif public and inspect.isfunction(function):
                parts += [_signature(member, function), _text(inspect.getdoc(function) or "")]
    return parts


def _signature(name: str, thing: object) -> str:
    try:
        signature = inspect.signature(thing)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return f"    {name}(...)"
    parameters = [_parameter(p) for p in signature.parameters.values() if p.name != "self"]
    result = (
        "" if signature.return_annotation is inspect.Signature.empty else f" -> {_type(signature.return_annotation)}"
    )
    if keywords := [p for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY]:
        first = next(
            n for n, p in enumerate(p for p in signature.parameters.values() if p.name != "self") if p == keywords[0]
        )
        if not any(p.kind is p.VAR_POSITIONAL for p in signature.parameters.values()):
            parameters.insert(first, "*")
    line = f"{name}({', '.join(parameters)}){result}"
    if len(line) > 110:
        line = f"{name}(\n    " + ",\n    ".join(parameters) + f",\n){result}"
    return textwrap.indent(line, "    ")


def _parameter(parameter: inspect.Parameter) -> str:
    star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    text = f"{star}{parameter.name}"
    if parameter.annotation is not parameter.empty:
        text += f": {_type(parameter.annotation)}"
    if parameter.default is not parameter.empty:
        text += f" = {_value(parameter.default)}"
    return text


def _type(annotation: object) -> str:
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"\b(?:typing|collections\.abc|pathlib|unstill(?:\.\w+)*)\.(?=\w)", "", text)


def _value(value: object) -> str:
    if dataclasses.is_dataclass(value):
        return f"{type(value).__name__}()"
    return repr(str(value) if isinstance(value, PurePath) else value)


def _text(docstring: str) -> str:
    """A docstring in Google's style as Markdown: sections become lists, double backticks single."""
    lines, out, section = docstring.replace("``", "`").splitlines(), [], ""
    for line in lines:
        if line.rstrip(":") in SECTIONS and line.endswith(":"):
            section = line.rstrip(":")
            out += ["", f"*{section}*", ""]
        elif section and (match := re.match(r"    (\*{0,2}[\w, .*]+): (.*)", line)):
            out.append(f"- `{match[1]}`: {match[2]}")
        elif section and line.startswith("    "):
            out.append(f"  {line.strip()}" if out[-1] else line.strip())
        else:
            section = section if not line.strip() else ""
            out.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(out)).strip().replace("<", "&lt;")


def _fields(kind: type) -> str:
    texts = _texts(kind)
    if not texts:
        return ""  # the docstring has them
    rows = []
    for field in dataclasses.fields(kind):
        default = field.default
        if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        shown = "" if default is dataclasses.MISSING else f"`{_code(_value(default))}`"
        rows.append([f"`{field.name}`", f"`{_code(_type(field.type))}`", shown, _cell(texts.get(field.name, ""))])
    return table(["field", "type", "default", "meaning"], rows, 4)


def _texts(kind: type) -> dict[str, str]:
    """The string below each field of a dataclass and of those it derives from."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(each):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(each))).body
        assert isinstance(tree, ast.ClassDef)
        for node, after in zip(tree.body, tree.body[1:], strict=False):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                if is_text and isinstance(after.value.value, str):
                    found[node.target.id] = after.value.value
    return found
