"""What a parameter model becomes in the run form of Prefect's UI: fields that stay empty until something is given."""

from typing import Any

from pydantic import GetJsonSchemaHandler
from pydantic_core import CoreSchema

from deeplab.config import Flags

# A yes or no that may be left open; told as a boolean it would be a switch, and every one of them be sent as no.
_CHOICE = {"enum": [True, False]}


class Form(Flags):
    """Base of the flows' parameters.

    A field that may be None would be a switch between its type and None, with the field itself hidden, and a run would
    record a null for each of a hundred. Told as its type alone it is an empty field, and what stays empty is not sent.
    """

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The model's schema, which the form and the server's check are made from."""
        schema = handler(core_schema)
        for field in handler.resolve_ref_schema(schema)["properties"].values():
            options = [option for option in field.get("anyOf", ()) if option.get("type") != "null"]
            if len(options) == 1 and field.get("default", "") is None:
                del field["anyOf"], field["default"]
                field.update(_CHOICE if options[0].get("type") == "boolean" else options[0])
        return schema
