"""OpenAI's own Python client: words about pictures."""
import base64

from .harness import equal, need
from .openai_pictures import client

QUESTION = "Describe this image."


def data_url(data):
    return "data:image/png;base64," + base64.b64encode(data).decode()


def asked(data, question=QUESTION):
    return {"role": "user", "content": [{"type": "text", "text": question}, {"type": "image_url", "image_url": {"url": data_url(data), "detail": "low"}}]}


def answer(bench, messages, **fields):
    return client(bench.server).chat.completions.create(model="sees", messages=messages, max_tokens=64, temperature=0, **fields)


def openai_describes(bench):
    scene = bench.scenes[0]
    got = answer(bench, [asked(bench.drawn(scene["caption"], scene["seed"]))])
    choice = got.choices[0]
    equal("the description", choice.message.content.strip(), scene["caption"])
    equal("the role and the reason", (choice.message.role, choice.finish_reason, choice.index), ("assistant", "stop", 0))
    equal("the object and the model", (got.object, got.model), ("chat.completion", "sees"))
    usage = got.usage
    need(usage.prompt_tokens > 0 and usage.completion_tokens > 0, "usage counts nothing")
    equal("the sum of usage", usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)


def openai_bare_address(bench):
    """`image_url` as a bare string, as some clients send it, and a question of words alone in a list."""
    scene = bench.scenes[15]
    data = bench.drawn(scene["caption"], scene["seed"])
    bare = {"role": "user", "content": [{"type": "image_url", "image_url": data_url(data)}, {"type": "text", "text": QUESTION}]}
    equal("the description", answer(bench, [bare]).choices[0].message.content.strip(), scene["caption"])


def openai_streams_words(bench):
    scene = bench.scenes[10]
    messages = [asked(bench.drawn(scene["caption"], scene["seed"]))]
    whole = answer(bench, messages)
    chunks = list(answer(bench, messages, stream=True, stream_options={"include_usage": True}))
    equal("the objects of the chunks", {chunk.object for chunk in chunks}, {"chat.completion.chunk"})
    equal("the names of the chunks", len({chunk.id for chunk in chunks}), 1)
    last, before = chunks[-1], [chunk.choices[0] for chunk in chunks[:-1]]
    equal("the choices of the chunk with usage", last.choices, [])
    equal("usage", last.usage.model_dump(exclude_none=True), whole.usage.model_dump(exclude_none=True))
    equal("the first chunk's role", before[0].delta.role, "assistant")
    equal("the words, joined", "".join(c.delta.content or "" for c in before), whole.choices[0].message.content)
    equal("the reasons", [c.finish_reason for c in before if c.finish_reason], ["stop"])
    equal("the last reason", before[-1].finish_reason, "stop")
    need(sum(bool(c.delta.content) for c in before) > 1, "all words came in one chunk")
    plain = list(answer(bench, messages, stream=True))
    need(all(chunk.choices and not chunk.usage for chunk in plain), "usage was told although nobody asked")


def openai_second_turn(bench):
    scene = bench.scenes[7]
    first = asked(bench.drawn(scene["caption"], scene["seed"]), "What shape is this?")
    said = answer(bench, [first]).choices[0].message.content
    need(scene["shape"] in said, f"the shape is said to be {said!r}")
    for question, word in (("What colour is the background?", scene["background"]), ("Where is it?", scene["position"])):
        turn = [first, {"role": "assistant", "content": said}, {"role": "user", "content": question}]
        found = answer(bench, turn).choices[0].message.content
        need(word in found, f"{question!r} after another question is answered with {found!r} and not {word!r}")


def openai_cuts_answers(bench):
    scene = bench.scenes[0]
    got = client(bench.server).chat.completions.create(model="sees", messages=[asked(bench.drawn(scene["caption"], 0))], max_completion_tokens=2)
    equal("the reason", got.choices[0].finish_reason, "length")
    equal("the tokens", got.usage.completion_tokens, 2)


CHECKS = [openai_describes, openai_bare_address, openai_streams_words, openai_second_turn, openai_cuts_answers]
