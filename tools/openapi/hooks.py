"""Values for schemathesis of the formats that /openapi.json names: pictures as files, in base64, and as data URLs."""
import base64
import io

import schemathesis
from hypothesis import strategies as st
from PIL import Image


def file(kind, side, colour):
    """A picture's bytes."""
    out = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(out, kind)
    return out.getvalue()


# A few sizes and kinds, of which the first is the smallest.
FILES = [file(kind, side, colour)
         for kind, side, colour in [("PNG", 16, "red"), ("PNG", 128, "blue"), ("JPEG", 64, "green"), ("WEBP", 40, "white")]]
FILE = st.sampled_from(FILES)
TEXT = FILE.map(lambda data: base64.b64encode(data).decode())

schemathesis.openapi.format("binary", FILE)
schemathesis.openapi.format("byte", TEXT)
schemathesis.openapi.format("data-url", TEXT.map(lambda text: "data:image/png;base64," + text))

# In a form everything is text: `true` as a prompt is one.
TEXTS = {"prompt", "negative_prompt", "user"}


@schemathesis.hook
def filter_body(context, body):
    """Leave out forms that break the schema only by the type of what is text."""
    forms = context.operation.path.startswith("/v1/images/") and context.operation.path != "/v1/images/generations"
    return not (forms and isinstance(body, dict) and any(name in body and not isinstance(body[name], str) for name in TEXTS))
