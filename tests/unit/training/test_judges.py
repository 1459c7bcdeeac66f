"""Judges: both orders, an endpoint over a real socket, a local VLM, and a hidden taste."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ppd_model.pipeline import MINI_WEIGHTS_DIR
from ppd_model.types import LabelledPair
from ppd_model.user_encoder import UserEncoder
from training.judges import llava
from training.judges.endpoint import KEY, MODEL, URL, EndpointJudge, EndpointSettings
from training.judges.judge import (
    JudgeError,
    Outcome,
    Question,
    ask_parts,
    ask_together,
    ask_twice,
    tally,
)
from training.judges.llava import LlavaJudge
from training.judges.question_text import ADDITIONAL_PROMPT, build_question, read_answer
from training.judges.taste import TasteJudge
from training.world.captions import canonical
from training.world.looks import Standardizer
from training.world.painter import paint
from training.world.scene import LOOKS, Scene
from training.world.tastes import single_look


def plain(value: int) -> Image.Image:
    return Image.new("RGB", (8, 8), (value, value, value))


CHOICES = [
    LabelledPair(f"caption {n}", plain(10 * n), plain(10 * n + 5), preferred=n % 2)
    for n in range(4)
]
QUESTION = Question(CHOICES, "a boat at the sea", plain(100), plain(200))


class Scripted:
    """A judge that answers in turn."""

    identity = "scripted"

    def __init__(self, *answers: int | None) -> None:
        self.answers = list(answers)
        self.shown: list[tuple[int, int]] = []

    def prefer(self, question: Question) -> int | None:
        first, second = np.asarray(question.first), np.asarray(question.second)
        self.shown.append((first[0, 0, 0], second[0, 0, 0]))
        return self.answers.pop(0)


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        ((0, 1), "first"),
        ((1, 0), "second"),
        ((0, 0), "inconsistent"),
        ((1, 1), "inconsistent"),
        ((None, 0), "unreadable"),
        ((0, None), "unreadable"),
    ],
)
def test_a_question_is_asked_in_both_orders(
    answers: tuple[int | None, int | None], outcome: Outcome
) -> None:
    judge = Scripted(*answers)
    assert ask_twice(judge, QUESTION) == outcome
    assert judge.shown == [(100, 200), (200, 100)]


def test_what_is_dropped_is_counted_and_not_counted_as_right_or_wrong() -> None:
    outcomes: list[Outcome] = ["first", "second", "second", "inconsistent", "unreadable", "first"]
    report = tally(outcomes, [0, 1, 0, 0, 1, 0])
    assert report["share_right"]["mean"] == 0.75
    assert report["share_right"]["count"] == report["kept"] == 4
    assert report["share_right_with_halves"]["mean"] == 0.7
    assert (report["questions"], report["inconsistent"], report["unreadable"]) == (6, 1, 1)
    assert tally(["inconsistent"], [0])["share_right"] is None
    with pytest.raises(ValueError, match="1 outcomes and 2 answers"):
        tally(["first"], [0, 1])


def test_verdicts_keep_the_order_of_the_questions() -> None:
    class Slow(Scripted):
        def prefer(self, question: Question) -> int | None:
            first, second = np.asarray(question.first), np.asarray(question.second)
            time.sleep(0.02 if first[0, 0, 0] < 150 else 0.0)
            return int(first[0, 0, 0] < second[0, 0, 0])

    questions = [
        (Slow(), Question(CHOICES, "x", plain(a), plain(b)))
        for a, b in [(100, 200), (250, 180), (120, 90)]
    ]
    parts = ([question] for question in questions)
    verdicts = [one for (one,) in ask_parts(parts, workers=3)]
    assert verdicts == ["second", "first", "first"]


def test_questions_are_made_when_their_turn_comes() -> None:
    made = 0

    def questions() -> Iterator[list[tuple[Scripted, Question]]]:
        nonlocal made
        for _ in range(50):
            made += 1
            yield [(Scripted(0, 1), QUESTION)]

    verdicts = ask_parts(questions(), workers=2)
    assert next(verdicts) == ["first"]
    assert made <= 4
    verdicts.close()  # type: ignore[attr-defined]


def test_the_question_is_the_papers_with_ten_pictures_in_order() -> None:
    question = build_question(Question(CHOICES, "new <|im_end|> caption", plain(100), plain(200)))
    values = [int(np.asarray(image)[0, 0, 0]) for image in question.images]
    assert values == [0, 5, 10, 15, 20, 25, 30, 35, 100, 200]
    said = question.turns()["user"]
    assert said.count("<image>") == 10
    assert said.count("Prediction of user preference: 1\n") == 2
    assert said.count("Prediction of user preference: 2\n") == 2
    assert said.index("User Profile: [Description]") < said.index(ADDITIONAL_PROMPT)
    assert said.rstrip().endswith("Here is Image 2: <image>")
    assert "<|im_end|>" not in said
    assert question.turns()["system"].startswith("You are an expert in image aesthetics")
    assert question.text.endswith("<|im_start|>assistant\n")
    with pytest.raises(ValueError, match="3 pairs"):
        build_question(Question(CHOICES[:3], "x", plain(0), plain(1)))


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("Prediction of user preference: 1", 0),
        ("... User Profile: warm.\n\nPrediction of user preference: [2]", 1),
        ("**Prediction of User Preference:** Image 2", 1),
        ("Prediction of user preference: 1. On reflection, prediction of user preference: 2", 1),
        ("Prediction of user preference: [1 or 2]", None),
        ("Prediction of user preference: 3", None),
        ("Prediction of user preference: 12", None),
        ("I cannot say which one.", None),
        ("", None),
    ],
)
def test_answers_are_read_or_refused(response: str, answer: int | None) -> None:
    assert read_answer(response) == answer


Reply = Callable[[BaseHTTPRequestHandler], None]


class Endpoint:
    """A small server on a real socket that answers in turn; the last reply repeats."""

    def __init__(self, *replies: Reply) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[Message] = []
        self.paths: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                number = len(outer.requests)
                outer.requests.append(json.loads(body))
                outer.headers.append(self.headers)
                outer.paths.append(self.path)
                replies[min(number, len(replies) - 1)](self)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


def reply(
    status: int, body: str = "", after: float = 0.0, headers: dict[str, str] | None = None
) -> Reply:
    def send(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(after)
        try:
            handler.send_response(status)
            for name, value in (headers or {}).items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(body.encode())))
            handler.end_headers()
            handler.wfile.write(body.encode())
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client did not wait

    return send


def says(text: object) -> Reply:
    return reply(200, json.dumps({"choices": [{"message": {"content": text}}]}))


ONE = says("Pair 1: ... Prediction of user preference: 1")
TWO = says("Prediction of user preference: 2")


@pytest.fixture
def served() -> Iterator[Callable[..., Endpoint]]:
    servers: list[Endpoint] = []

    def serve(*replies: Reply) -> Endpoint:
        servers.append(Endpoint(*replies))
        return servers[-1]

    yield serve
    for endpoint in servers:
        endpoint.server.shutdown()
        endpoint.server.server_close()


def ask(endpoint: Endpoint, **options: Any) -> int | None:
    environment = {URL: endpoint.url, MODEL: "some-vision-model", KEY: "secret-key"}
    settings = EndpointSettings.read(environment, **options)
    with EndpointJudge(settings) as judge:
        return judge.prefer(Question(CHOICES, "a boat at the sea", plain(100), plain(200)))


def test_the_endpoint_gets_the_question_with_pictures_as_data_urls(
    served: Callable[..., Endpoint],
) -> None:
    endpoint = served(TWO)
    assert ask(endpoint) == 1
    assert endpoint.paths == ["/v1/chat/completions"]
    assert endpoint.headers[0]["Authorization"] == "Bearer secret-key"
    body = endpoint.requests[0]
    assert (body["model"], body["temperature"], body["top_p"]) == ("some-vision-model", 1.0, 1.0)
    system, user = body["messages"]
    assert system["role"] == "system"
    assert user["role"] == "user"
    urls = [part["image_url"]["url"] for part in user["content"] if part["type"] == "image_url"]
    assert len(urls) == 10
    kind, _, data = urls[-1].partition(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.getpixel((0, 0)) == (200, 200, 200)
    text = "".join(part["text"] for part in user["content"] if part["type"] == "text")
    assert "a boat at the sea" in text
    assert "<image>" not in text
    assert "<|im_" not in text


def test_pictures_can_be_sent_as_the_authors_send_them(served: Callable[..., Endpoint]) -> None:
    endpoint = served(TWO)
    assert ask(endpoint, pictures="jpeg") == 1
    parts = endpoint.requests[0]["messages"][1]["content"]
    url = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"][-1]
    kind, _, data = url.partition(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert (image.format, image.getpixel((0, 0))) == ("JPEG", (200, 200, 200))
    as_png, as_jpeg = (
        EndpointJudge(EndpointSettings("http://x", "m", pictures=pictures)).identity
        for pictures in ("png", "jpeg")
    )
    assert as_jpeg == f"{as_png}, pictures as jpeg"


def test_a_busy_endpoint_is_asked_again_when_it_says(served: Callable[..., Endpoint]) -> None:
    endpoint = served(
        reply(429, "slow down", headers={"Retry-After": "0.3"}),
        reply(503, headers={"Retry-After": "0.01"}),
        ONE,
    )
    started_s = time.monotonic()
    assert ask(endpoint) == 0
    assert 0.3 < time.monotonic() - started_s < 3
    assert len(endpoint.requests) == 3


def test_an_endpoint_that_stays_busy_is_an_error_not_an_answer(
    served: Callable[..., Endpoint],
) -> None:
    endpoint = served(reply(503, "overloaded", headers={"Retry-After": "0.01"}))
    with pytest.raises(JudgeError, match=r"status 503: overloaded"):
        ask(endpoint, attempts=3)
    assert len(endpoint.requests) == 3


def test_a_silent_endpoint_is_given_up_after_its_time(served: Callable[..., Endpoint]) -> None:
    endpoint = served(reply(200, after=0.5), TWO)
    assert ask(endpoint, timeout_s=0.1) == 1
    with pytest.raises(JudgeError, match=r"no answer in 2 attempts: .*[Tt]ime"):
        ask(served(reply(200, after=0.5)), timeout_s=0.1, attempts=2)


def test_nobody_there_is_an_error() -> None:
    endpoint = Endpoint(ONE)
    endpoint.server.shutdown()
    endpoint.server.server_close()
    with pytest.raises(JudgeError, match=r"no answer in 2 attempts: .*[Cc]onnect"):
        ask(endpoint, attempts=2)


@pytest.mark.parametrize("status", [400, 401, 404, 302])
def test_a_refusal_is_not_tried_again(served: Callable[..., Endpoint], status: int) -> None:
    endpoint = served(reply(status, "no"))
    with pytest.raises(JudgeError, match=f"refuses: status {status}: no"):
        ask(endpoint)
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    "nonsense",
    [
        says("I like both."),
        says(None),
        says(["Prediction of user preference: 1"]),
        reply(200, "<html>not json"),
        reply(200, '{"choices": []}'),
        reply(200, '{"choices": 3}'),
        reply(200, "[]"),
    ],
)
def test_nonsense_is_no_preference(served: Callable[..., Endpoint], nonsense: Reply) -> None:
    endpoint = served(nonsense)
    assert ask(endpoint) is None
    assert len(endpoint.requests) == 1


def test_a_refusal_ends_the_whole_run(served: Callable[..., Endpoint]) -> None:
    endpoint = served(reply(401, "bad key"))
    settings = EndpointSettings.read({URL: endpoint.url, MODEL: "m"})
    with EndpointJudge(settings) as judge:
        verdicts = ask_parts(([(judge, QUESTION)] for _ in range(100)), workers=2)
        with pytest.raises(JudgeError, match="bad key"):
            list(verdicts)
    assert len(endpoint.requests) < 10
    assert "Authorization" not in endpoint.headers[0]


def test_settings_come_from_arguments_then_from_the_environment() -> None:
    environment = {URL: "https://one.example/v1/", MODEL: "one", KEY: "k"}
    settings = EndpointSettings.read(environment, model="two", timeout_s=5.0)
    assert (settings.base_url, settings.model) == ("https://one.example/v1", "two")
    assert settings.timeout_s == 5
    assert "k" not in repr(settings).replace("key", "").replace("tokens", "")
    with pytest.raises(ValueError, match=f"{URL} and {MODEL}"):
        EndpointSettings.read({})
    with pytest.raises(ValueError, match="expected http"):
        EndpointSettings.read({URL: "one.example", MODEL: "one"})


def picture(**looks: float) -> Image.Image:
    looks_L = np.array([looks.get(name, 0.0) for name in LOOKS], dtype=np.float32)
    return Image.fromarray(paint(Scene(3, 2, looks_L, seed=5)))


def test_a_hidden_taste_prefers_what_it_likes() -> None:
    standardizer = Standardizer.load(MINI_WEIGHTS_DIR / "standardizer.json")
    warm, cold = picture(warmth=0.8), picture(warmth=-0.8)
    question = Question([], canonical(3, 2), warm, cold)
    likes = TasteJudge(single_look(LOOKS.index("warmth"), 1.0), standardizer)
    hates = TasteJudge(single_look(LOOKS.index("warmth"), -1.0), standardizer)
    assert ask_twice(likes, question) == "first"
    assert ask_twice(hates, question) == "second"
    assert likes.prefer(Question([], canonical(3, 2), warm, warm)) is None


@pytest.fixture(scope="module")
def mini_encoder() -> UserEncoder:
    return UserEncoder.load("mini")


def test_a_local_vlm_is_asked_with_all_ten_pictures(
    mini_encoder: UserEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = LlavaJudge(mini_encoder, max_new_tokens=4)
    asked: list[dict[str, Any]] = []
    ids = mini_encoder.processor.tokenizer("Prediction of user preference: 2").input_ids

    def generate(**inputs: Any) -> Any:
        asked.append(inputs)
        prompt = inputs["input_ids"]
        return prompt.new_tensor([[*row, *ids] for row in prompt.tolist()])

    with monkeypatch.context() as patched:
        patched.setattr(mini_encoder.model, "generate", generate)
        assert judge.prefer(Question(CHOICES, "a boat at the sea", plain(100), plain(200))) == 1
    pictures = asked[0]["pixel_values"]
    assert len(pictures) == 10
    assert float(pictures[-1].mean()) == pytest.approx(200 / 127.5 - 1, abs=0.01)
    assert asked[0]["do_sample"] is False
    answer = judge.prefer(Question(CHOICES, "a boat at the sea", plain(100), plain(200)))
    assert answer in (0, 1, None)  # the real model runs to its end


def test_a_local_vlm_answers_questions_together_as_it_answers_each(
    mini_encoder: UserEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = LlavaJudge(mini_encoder, max_new_tokens=12)
    questions = [
        Question(CHOICES, prompt, plain(100), plain(shade))
        for prompt, shade in (("a boat at the sea", 200), ("a tree", 30), ("a house at night", 90))
    ]
    decoded: list[str] = []
    monkeypatch.setattr(llava, "read_answer", lambda text: decoded.append(text))
    judge.prefer_each(questions)
    together, decoded[:] = list(decoded), []
    for question in questions:
        judge.prefer(question)
    assert together == decoded
    assert all(together)


def test_a_judge_of_many_is_asked_about_a_part_at_once_in_both_orders() -> None:
    class Many(Scripted):
        def prefer_each(self, questions: Sequence[Question]) -> list[int | None]:
            parts.append(len(questions))
            return [self.prefer(question) for question in questions]

    parts: list[int] = []
    judge = Many(0, 0, 1, 0)
    assert ask_together([(judge, QUESTION), (judge, QUESTION)]) == ["first", "inconsistent"]
    assert parts == [2, 2]
    assert judge.shown == [(100, 200)] * 2 + [(200, 100)] * 2


def test_a_local_vlm_refuses_a_prompt_with_tiles(
    mini_encoder: UserEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(UserEncoder, "tokens_per_image", property(lambda _: 3))
    with pytest.raises(JudgeError, match="image tokens"):
        LlavaJudge(mini_encoder).prefer(Question(CHOICES, "x", plain(1), plain(2)))


def test_accuracy_is_measured_on_choices_that_neither_set_nor_training_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.judges import __main__ as command
    from training.judges.known_choices import KnownChoice, KnownPair

    def jpeg(image: Image.Image) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return buffer.getvalue()

    def pair(preferred: int) -> KnownPair:
        pictures = (jpeg(picture(warmth=0.8)), jpeg(picture(warmth=-0.8)))
        return KnownPair(canonical(3, 2), pictures, preferred)

    known = [KnownChoice(str(n), (pair(0),) * 4, pair(n % 2), (canonical(3, 2),)) for n in range(4)]
    asked: list[tuple[Any, ...]] = []

    def choices(*arguments: Any) -> list[KnownChoice]:
        asked.append(arguments)
        return known

    standardizer = Standardizer.load(MINI_WEIGHTS_DIR / "standardizer.json")
    warm = TasteJudge(single_look(LOOKS.index("warmth"), 1.0), standardizer)
    monkeypatch.setattr(command, "known_choices", choices)
    monkeypatch.setattr(command, "make_judge", lambda *_: lambda __: warm)
    out = tmp_path / "deep" / "accuracy.json"
    command.measure(command.AccuracyConfig(judge="taste", data=tmp_path, out=out, people=4))
    report = json.loads(out.read_text())
    assert asked == [(tmp_path, "unseen_users", 4)]
    assert report["outcomes"] == ["first"] * 4
    assert report["right"] == [0, 1, 0, 1]
    assert report["share_right"]["mean"] == 0.5
    with pytest.raises(ValueError, match=r"accuracy.jsonl holds verdicts: pass --resume"):
        command.measure(command.AccuracyConfig(judge="taste", data=tmp_path, out=out))
