"""AWS's own model of CodePipeline, as botocore carries it, made into shapes once, at import.

It must not know the calls: any operation's request, any named structure.
"""

import re
from typing import Any

from botocore.loaders import create_loader
from botocore.model import ListShape, MapShape, ServiceModel, StructureShape
from botocore.model import Shape as Modelled

from dispatcher.emulator.shapes import Items, Number, Record, Shape, Text, TextMap, Unchecked

# The loader alone: a session would read the user's AWS configuration, which is not for a server.
SERVICE = ServiceModel(create_loader().load_service_model("codepipeline", "service-2"))
# The model marks none of these as sensitive, yet who has them can act on the job.
SECRET = frozenset({"ClientToken", "Nonce", "ContinuationToken"})


def input_of(operation: str) -> Record:
    return record(SERVICE.operation_model(operation).input_shape)


def structure(name: str) -> Record:
    return record(SERVICE.shape_for(name))


def record(shape: Modelled | None) -> Record:
    if not isinstance(shape, StructureShape):
        raise TypeError(f"not a structure in AWS's model: {shape}")
    members = {name: compiled(member) for name, member in shape.members.items()}
    required = {name: members.pop(name) for name in shape.required_members}
    return Record(required, members)


def named(name: str) -> Shape:
    """A type by the model's own name for it: "ClientId"."""
    return compiled(SERVICE.shape_for(name))


def compiled(shape: Modelled) -> Shape:
    match shape:
        case StructureShape():
            return record(shape)
        case MapShape():
            most = shape.metadata.get("max", TextMap.most)
            return TextMap(most, text(shape.key), text(shape.value))
        case ListShape():
            return Items(compiled(shape.member), shape.metadata.get("max", Items.most))
    return simple(shape)


def simple(shape: Modelled) -> Shape:
    if shape.type_name == "string":
        return text(shape)
    if shape.type_name in {"integer", "long"}:
        limits: dict[str, Any] = shape.metadata
        return Number(limits.get("min", Number.least), limits.get("max", Number.most))
    if shape.type_name == "timestamp":
        return Number(whole=False)  # seconds since 1970, in JSON 1.1
    return Unchecked()


def text(shape: Modelled) -> Text:
    limits: dict[str, Any] = shape.metadata
    return Text(
        values=tuple(limits.get("enum", ())),
        least=limits.get("min", 0),
        most=limits.get("max", Text.most),
        # AWS reads patterns as Java does: \d and \w are of ASCII, and the whole text must match.
        pattern=re.compile(limits["pattern"], re.ASCII) if "pattern" in limits else None,
        secret=shape.name in SECRET or bool(limits.get("sensitive")),
    )
