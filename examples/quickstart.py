"""Two calls for two teams: one at an API's list price, one on our own accelerators.

make demo                                                      # in one terminal
python tests/fake_openai.py --port 9100                        # in another, or use your own key and endpoint
OPENAI_BASE_URL=http://127.0.0.1:9100/v1 OPENAI_API_KEY=none .venv/bin/python examples/quickstart.py
"""

import openai

from millicent.sdk import instrument, track_tokens

millicent = instrument()  # to http://127.0.0.1:4318, or MILLICENT_ENDPOINT
client = openai.OpenAI()


@track_tokens(team="Search", feature="answers")
def answer(question: str) -> openai.types.chat.ChatCompletion:
    return client.chat.completions.create(model="gpt-5-mini", messages=[{"role": "user", "content": question}])


@track_tokens(team="Research", deployment="oss-b200")
def draft(question: str) -> openai.types.chat.ChatCompletion:
    return client.chat.completions.create(model="gpt-oss-120b", messages=[{"role": "user", "content": question}])


print(answer("What does a token cost us?").choices[0].message.content)
print(draft("And on our own hardware?").choices[0].message.content)
millicent.flush()
